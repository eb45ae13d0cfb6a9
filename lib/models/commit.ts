import { existsSync, lstatSync } from 'node:fs'
import { link, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno } from '../errors.ts'
import { CURRENT, foldersIn, GENERATIONS, NEXT_CURRENT, NEXT_FLAT } from '../layout.ts'
import { renameDurably, syncFolder } from '../system/durable.ts'
import {
  currentGeneration,
  type Generation,
  generationOf,
  listGenerations,
  nextGenerationDir,
} from './generations.ts'
import { MANIFEST, type Manifest, readManifest } from './manifest.ts'
import { assertPlaceable, putFlatNames, removeFlatNames } from './put-flat-names.ts'

/**
 * Make a generation current: one rename, before which a reader finds the old one, and after which the new one, whole;
 * through a power cut too. Flat names follow at once.
 *
 * @param staged its manifest, if it is the one that is being made; it gets its number then
 * @returns the generation
 * @throws {TrainerError} as {@link assertPlaceable}, and the system's error: by then `current` may be the new one
 */
export async function makeCurrent(jobDir: string, number: number, staged?: Manifest): Promise<Generation> {
  const { generationsDir } = foldersIn(jobDir)
  const generation = generationOf(jobDir, number)
  assertPlaceable(jobDir, staged ?? readManifest(generation.dir)!)
  const next = join(jobDir, NEXT_CURRENT)
  await rm(next, { force: true })
  // From here on the next start goes on, wherever this stops: the link names a generation that is complete, or none.
  await symlink(`${GENERATIONS}/${number}`, next)
  await syncFolder(jobDir)
  if (staged) {
    await rename(nextGenerationDir(jobDir), generation.dir)
    await syncFolder(generationsDir)
  }
  await renameDurably(next, join(jobDir, CURRENT))
  const retired = new Set(listGenerations(jobDir).flatMap(externalDataOf))
  await putFlatNames(jobDir, generation, { retired })
  return generation
}

/** List a generation's external data by name. */
function externalDataOf({ dir }: Generation): string[] {
  const { files = {}, metadata } = readManifest(dir) ?? {}
  return Object.keys(files).filter(name => !metadata?.models.includes(name))
}

/** Has a generation all files of its manifest, in their sizes? One that made room, or whose removal was cut off, has not. */
export function isWhole({ dir }: Generation): boolean {
  const manifest = readManifest(dir)
  if (!manifest) return false
  return Object.keys(manifest.files).every(name => {
    const bytes = lstatSync(join(dir, name), { throwIfNoEntry: false })?.size
    return bytes !== undefined && bytes === manifest.metadata.sizes[name]
  })
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
    if (isErrno(error, 'EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EINVAL', 'EMLINK')) return false
    throw error
  } finally {
    await clear()
  }
}

/**
 * Remove generations beyond the last `keep` that were current before the current one, oldest first; never `spared`, which
 * readers may still be loading. Those that the job was rolled back from stay until a new one is published.
 *
 * @throws the system's error
 */
export async function retire(jobDir: string, keep: number, spared?: Generation): Promise<void> {
  const current = currentGeneration(jobDir)
  if (!current) return
  const kept = new Set(formerGenerations(jobDir, current).slice(0, keep))
  for (const generation of listGenerations(jobDir)) {
    const { number } = generation
    if (number < current.number && number !== spared?.number && !kept.has(number))
      await dropGeneration(jobDir, generation)
  }
}

/**
 * List the numbers of the generations that were current before one, the last of them first. What the job was rolled back
 * from in between is not among them: each manifest tells what its generation has replaced.
 */
export function formerGenerations(jobDir: string, { number }: Generation): number[] {
  const manifests = new Map(
    listGenerations(jobDir).map(({ number, dir }) => [number, readManifest(dir)] as const),
  )
  const former: number[] = []
  for (let below = number, at: number | undefined = number; at !== undefined; ) {
    const replaced: number | undefined = manifests.get(at)?.metadata.replaces
    if (replaced !== undefined && replaced < below) below = replaced + 1
    at = [...manifests.keys()].findLast(it => it < below)
    if (at !== undefined) former.push(at)
    below = at ?? 0
  }
  return former
}

/** Remove a generation that is not current. Its files stay where other generations have them too. */
export async function dropGeneration(jobDir: string, generation: Generation): Promise<void> {
  const { dir } = generation
  const current = currentGeneration(jobDir)
  if (current) await removeFlatNames(jobDir, generation, current)
  // Without its manifest it is none any more, wherever the removal is cut off.
  await rm(join(dir, MANIFEST), { force: true })
  await rm(dir, { recursive: true, force: true })
  if (existsSync(foldersIn(jobDir).generationsDir)) await syncFolder(foldersIn(jobDir).generationsDir)
}
