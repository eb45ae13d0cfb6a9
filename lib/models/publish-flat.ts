import { lstatSync, type Stats } from 'node:fs'
import { link, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GENERATIONS, NEXT_CURRENT, NEXT_FLAT } from '../settings/layout.ts'
import { moveDurably, refusesLink, renameDurably, syncFolder } from '../system/durable.ts'
import { reasonOf } from '../system/plain-file.ts'
import { compareFile } from './compare.ts'
import { nextGenerationDir } from './generations.ts'
import { MANIFEST, type Manifest, NEXT_MANIFEST, readManifest, writeManifest } from './manifest.ts'
import { assertPlaceable } from './put-flat-names.ts'
import type { Staged } from './stage.ts'

// The way of filesystems without links: files are published one by one.

/**
 * Publish a staged generation as flat files. Each file is the old one or the new one, whole, at every moment; several
 * files are replaced one after another, external data first and the manifest last. A failing step is undone. Once a
 * published file has been replaced that is impossible, and the publication is finished instead, as after a crash.
 *
 * @param signal ends it until a published file has been replaced
 * @throws the system's error or the reason of `signal`, whether the publication was undone or finished
 */
export async function publishFlat(
  jobDir: string,
  { dir, manifest }: Staged,
  previous: Manifest | undefined,
  signal?: AbortSignal,
): Promise<void> {
  assertPlaceable(jobDir, manifest)
  const names = Object.keys(manifest.files)
  const superseded = supersededBy(manifest, previous)
  await planManifest(jobDir, { ...manifest, metadata: { ...manifest.metadata, superseded, flat: true } })
  const replaced = names.filter(name => statOf(join(jobDir, name)))
  try {
    for (const name of names) {
      if (!replaced.length) signal?.throwIfAborted()
      await moveDurably(dir, jobDir, name)
    }
    await rename(join(jobDir, NEXT_MANIFEST), join(jobDir, MANIFEST))
  } catch (error) {
    const moved = names.filter(name => !statOf(join(dir, name)))
    const settled = moved.some(name => replaced.includes(name))
      ? finishPublication(jobDir)
      : undo(jobDir, dir, moved)
    await settled.catch(() => {}) // the disk is failing; the next start settles it
    throw error
  }
  await syncFolder(jobDir)
  await rm(dir, { recursive: true, force: true })
}

/** Replace the manifest of flat files. */
export async function adoptFlat(
  jobDir: string,
  manifest: Manifest,
  previous: Manifest | undefined,
): Promise<void> {
  const superseded = supersededBy(manifest, previous)
  await planManifest(jobDir, { ...manifest, metadata: { ...manifest.metadata, superseded, flat: true } })
  await commitManifest(jobDir)
}

/**
 * Finish a publication of flat files that was cut off. If its manifest is on disk, move everything that it lists into
 * place. Without one it had changed nothing that is published, and its leftovers are removed.
 */
export async function finishPublication(jobDir: string): Promise<void> {
  const planned = readManifest(jobDir, NEXT_MANIFEST)
  if (planned) await redo(jobDir, planned)
  await rm(join(jobDir, NEXT_MANIFEST), { force: true })
}

/** Remove the external data of replaced models, which was kept for readers that were just loading them. */
export async function dropSuperseded(jobDir: string): Promise<void> {
  const manifest = readManifest(jobDir)
  if (!manifest?.metadata.superseded.length) return
  for (const name of manifest.metadata.superseded) {
    const stats = statOf(join(jobDir, name))
    // Never remove through a folder that has become a link.
    if (stats?.isFile() && !passesLink(jobDir, name)) await rm(join(jobDir, name))
  }
  await planManifest(jobDir, { ...manifest, metadata: { ...manifest.metadata, superseded: [] } })
  await commitManifest(jobDir)
}

/**
 * Remove what was published as flat files, without generations, and is not among the files of the first generation; what
 * somebody has changed since, and an operator's own, stays.
 */
export async function removeFormer(jobDir: string, former: Manifest, manifest: Manifest): Promise<void> {
  const { adopted, superseded } = former.metadata
  for (const name of [...Object.keys(former.files), ...superseded]) {
    if (Object.hasOwn(manifest.files, name) || adopted.includes(name) || passesLink(jobDir, name)) continue
    if (superseded.includes(name) ? statOf(join(jobDir, name))?.isFile() : await isAs(jobDir, name, former))
      await rm(join(jobDir, name))
  }
}

async function undo(jobDir: string, dir: string, moved: string[]): Promise<void> {
  for (const name of moved) await moveDurably(jobDir, dir, name)
  await rm(join(jobDir, NEXT_MANIFEST), { force: true })
}

async function redo(jobDir: string, planned: Manifest): Promise<void> {
  const dir = nextGenerationDir(jobDir)
  const arrivals: string[] = []
  for (const name of Object.keys(planned.files)) {
    if (await isAs(dir, name, planned)) arrivals.push(name)
    // Stop where somebody has removed or changed a file: the files in place stay, each whole.
    else if (!(await isAs(jobDir, name, planned))) return
  }
  for (const name of arrivals) await moveDurably(dir, jobDir, name)
  await commitManifest(jobDir)
}

async function isAs(folder: string, name: string, manifest: Manifest): Promise<boolean> {
  try {
    return ['same', 'touched'].includes(await compareFile(folder, name, manifest))
  } catch (error) {
    reasonOf(error)
    return false
  }
}

/** List what no model needs once the manifest is current. The next start removes it. */
function supersededBy({ files }: Manifest, previous: Manifest | undefined): string[] {
  if (!previous) return []
  const { models, superseded, adopted } = previous.metadata
  // A manifest that names no models was not written here; nothing of it is known to be ours.
  const former = models.length ? Object.keys(previous.files).filter(name => !adopted.includes(name)) : []
  return [...new Set([...superseded, ...former])].filter(name => !Object.hasOwn(files, name))
}

function passesLink(jobDir: string, name: string): boolean {
  const parts = name.split('/').slice(0, -1)
  return parts.some((_, index) => statOf(join(jobDir, ...parts.slice(0, index + 1)))?.isSymbolicLink())
}

/** Write the next manifest durably. The current one stands until the next is committed. */
async function planManifest(jobDir: string, manifest: Manifest): Promise<void> {
  await writeManifest(join(jobDir, NEXT_MANIFEST), manifest)
}

/** Make the next manifest the current one, durably. */
async function commitManifest(jobDir: string): Promise<void> {
  await renameDurably(join(jobDir, NEXT_MANIFEST), join(jobDir, MANIFEST))
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false })
}

/**
 * Can generations be published here? Some filesystems have no hard links or no symbolic ones (vfat, exfat, some of FUSE).
 *
 * @throws the system's error for any other reason than that
 */
export async function hasLinks(jobDir: string): Promise<boolean> {
  const [file, path] = [join(jobDir, NEXT_FLAT), join(jobDir, NEXT_CURRENT)]
  const clear = () => Promise.all([file, path].map(it => rm(it, { force: true })))
  await clear()
  await writeFile(file, '', { flag: 'wx' })
  try {
    await link(file, path)
    await rm(path)
    await symlink(GENERATIONS, path)
    return true
  } catch (error) {
    if (refusesLink(error)) return false
    throw error
  } finally {
    await clear()
  }
}
