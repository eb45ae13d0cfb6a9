import { lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs'
import { link, rename, rm, rmdir, symlink, unlink } from 'node:fs/promises'
import { dirname, join, posix } from 'node:path'
import { isErrno, TrainerError } from '../errors.ts'
import { CURRENT, NEXT_FLAT } from '../settings/layout.ts'
import { makeFolderDurably, syncFolder } from '../system/durable.ts'
import { flatNamesOf } from './flat-names.ts'
import { type Generation, isSameFile, listGenerations } from './generations.ts'
import { type Manifest, readManifest } from './manifest.ts'
import { foreignReferences } from './own-models.ts'
import { folderMode, share } from './sharing.ts'

/**
 * Assert that the flat names of a generation can be put: no folder of somebody else's, and no link, is in their place or
 * on their way.
 *
 * @throws {TrainerError} `training-failed` or `storage`
 */
export function assertPlaceable(jobDir: string, manifest: Manifest): void {
  const { files, folder } = flatNamesOf(manifest)
  for (const name of files) {
    if (statOf(join(jobDir, name))?.isDirectory()) throw folderInPlace(jobDir, name)
    for (const parent of parentsOf(name)) {
      const stats = statOf(join(jobDir, parent))
      if (!stats || stats.isDirectory() || isOurs(jobDir, parent)) continue
      throw new TrainerError(
        'storage',
        `Cannot publish ${name} in ${jobDir}: ${parent} is not a folder; move it away`,
      )
    }
  }
  if (folder === undefined) return
  const stats = statOf(join(jobDir, folder))
  if (stats && !stats.isDirectory() && !stats.isSymbolicLink() && !isOurs(jobDir, folder)) {
    throw new TrainerError(
      'storage',
      `Cannot publish ${folder} in ${jobDir}: a file has its place; move it away`,
    )
  }
}

function folderInPlace(jobDir: string, name: string): TrainerError {
  return new TrainerError(
    'training-failed',
    `Cannot publish ${name}: ${jobDir} has a folder of that name; move it away`,
  )
}

/**
 * Put the flat names of the current generation, and remove those of others, durably. What is right already costs a look.
 * A name that an operator's file has, which no generation knows, is taken by the published one, unless `leave` has it.
 *
 * @param leave flat names to leave alone
 * @param retired flat names of external data that readers may still ask for, who have just read the model before
 * @throws the system's error
 */
export async function putFlatNames(
  jobDir: string,
  { dir }: Generation,
  { leave = new Set<string>(), retired = new Set<string>() } = {},
): Promise<void> {
  const manifest = readManifest(dir)
  if (!manifest) return
  const { files, folder, hidden } = flatNamesOf(manifest)
  const touched = new Set<string>()
  await rm(join(jobDir, NEXT_FLAT), { force: true })
  // Models that were published as flat files, before there were generations, stay flat until the next publication. It removes
  // them before anything new comes: a reader of a set must not find a part of each.
  const isStill = (name: string) => isSameFile(join(dir, name), join(jobDir, name))
  await removeFlat(
    jobDir,
    hidden.filter(name => !isStill(name)),
    touched,
  )
  const inside = Object.keys(manifest.files).filter(name => folder && name.startsWith(`${folder}/`))
  if (folder !== undefined && !inside.every(isStill)) await putFolder(jobDir, folder, inside, touched)
  for (const name of files) {
    const [from, to] = [join(dir, name), join(jobDir, name)]
    if (leave.has(name) || isStill(name)) continue
    await makeParents(jobDir, name)
    await link(from, join(jobDir, NEXT_FLAT))
    await rename(join(jobDir, NEXT_FLAT), to)
    touched.add(dirname(to))
  }
  const stale = staleNames(jobDir, [...files, ...hidden.filter(isStill)], folder, leave, retired)
  await removeUnneeded(jobDir, stale, touched)
  await syncTouched(jobDir, touched)
}

/** Remove the flat names that only this generation has put, before it goes itself. */
export async function removeFlatNames(
  jobDir: string,
  { dir }: Generation,
  current: Generation,
): Promise<void> {
  const names = Object.keys(readManifest(dir)?.files ?? {}).filter(
    name =>
      isSameFile(join(dir, name), join(jobDir, name)) &&
      !isSameFile(join(dir, name), join(current.dir, name)),
  )
  await removeUnneeded(jobDir, names, new Set())
}

/**
 * Remove the flat names that a generation has put for files that its next manifest leaves out, durably, before that takes the
 * place of its manifest: by that alone they are known to be ours. Where this is cut off, the next start puts them back.
 */
export async function removeDropped(jobDir: string, { dir }: Generation, next: Manifest): Promise<void> {
  const former = readManifest(dir)
  if (!former) return
  const names = Object.keys(former.files).filter(
    name => !Object.hasOwn(next.files, name) && isSameFile(join(dir, name), join(jobDir, name)),
  )
  const { folder } = flatNamesOf(former)
  if (folder !== undefined && folder !== flatNamesOf(next).folder && isOwnLink(jobDir, folder))
    names.push(folder)
  const touched = new Set<string>()
  await removeUnneeded(jobDir, names, touched)
  await syncTouched(jobDir, touched)
}

/** Remove flat names, but not what an operator's own model needs. */
async function removeUnneeded(jobDir: string, names: string[], touched: Set<string>): Promise<void> {
  const needed = names.length ? await foreignReferences(jobDir) : []
  await removeFlat(
    jobDir,
    names.filter(name => !needed.includes(name)),
    touched,
  )
}

async function syncTouched(jobDir: string, touched: Set<string>): Promise<void> {
  for (const path of touched) if (statOf(path)) await syncFolder(path)
  if (touched.size) await syncFolder(jobDir)
}

/** List the flat names that other generations have put, as far as nobody has changed what is there. */
function staleNames(
  jobDir: string,
  files: string[],
  folder: string | undefined,
  leave: Set<string>,
  retired: Set<string>,
): string[] {
  const stale = listGenerations(jobDir).flatMap(({ dir }) => {
    const known = readManifest(dir)
    if (!known) return []
    const folderName = flatNamesOf(known).folder
    const isFolderStale = folderName !== undefined && folderName !== folder && isOwnLink(jobDir, folderName)
    return [
      ...Object.keys(known.files).filter(name => isSameFile(join(dir, name), join(jobDir, name))),
      ...(isFolderStale ? [folderName] : []),
    ]
  })
  const kept = new Set([...files, ...leave, ...retired])
  return [...new Set(stale)].filter(name => !kept.has(name) && !(folder && name.startsWith(`${folder}/`)))
}

async function removeFlat(jobDir: string, names: string[], touched: Set<string>): Promise<void> {
  for (const name of names) {
    const stats = statOf(join(jobDir, name))
    if (!stats || stats.isDirectory() || parentsOf(name).some(parent => isLink(jobDir, parent))) continue
    await unlink(join(jobDir, name))
    touched.add(dirname(join(jobDir, name)))
    for (const parent of parentsOf(name)) await removeIfEmpty(join(jobDir, parent))
  }
}

async function removeIfEmpty(folder: string): Promise<void> {
  try {
    await rmdir(folder)
  } catch (error) {
    if (!isErrno(error, 'ENOTEMPTY', 'EEXIST', 'ENOENT')) throw error
  }
}

/** Put a link to a folder of the current generation; it follows `current` by itself. */
async function putFolder(
  jobDir: string,
  folder: string,
  inside: string[],
  touched: Set<string>,
): Promise<void> {
  if (isOwnLink(jobDir, folder)) return
  const path = join(jobDir, folder)
  if (statOf(path)?.isDirectory()) {
    // Published as files, before there were generations.
    await removeFlat(jobDir, inside, touched)
    if (statOf(path)?.isDirectory() && readdirSync(path).length) throw folderInPlace(jobDir, folder)
  }
  await symlink(posix.join(CURRENT, folder), join(jobDir, NEXT_FLAT))
  await rename(join(jobDir, NEXT_FLAT), path)
  touched.add(jobDir)
}

/** Make the folders on the way to a flat name; a flat name of another generation gives way. */
async function makeParents(jobDir: string, name: string): Promise<void> {
  for (const parent of parentsOf(name)) {
    const path = join(jobDir, parent)
    if (isOurs(jobDir, parent)) await unlink(path)
    if (statOf(path)?.isDirectory()) continue
    await makeFolderDurably(path)
    share(jobDir, path, folderMode(jobDir))
  }
}

/** List the folders on the way to a name, topmost first. */
function parentsOf(name: string): string[] {
  const parts = name.split('/').slice(0, -1)
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'))
}

function isOwnLink(jobDir: string, name: string): boolean {
  return isLink(jobDir, name) && readlinkSync(join(jobDir, name)) === posix.join(CURRENT, name)
}

/** Is it a flat name: a link of ours, or a file that a generation has under this name? */
function isOurs(jobDir: string, name: string): boolean {
  const path = join(jobDir, name)
  const isFile = statOf(path)?.isFile() ?? false
  return (
    isOwnLink(jobDir, name) ||
    (isFile && listGenerations(jobDir).some(({ dir }) => isSameFile(join(dir, name), path)))
  )
}

function isLink(jobDir: string, name: string): boolean {
  return statOf(join(jobDir, name))?.isSymbolicLink() ?? false
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch (error) {
    if (isErrno(error, 'ENOTDIR')) return undefined
    throw error
  }
}
