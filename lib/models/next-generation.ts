import { existsSync } from 'node:fs'
import { link, mkdir, rename, rm } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { isErrno, TrainerError } from '../errors.ts'
import { foldersIn } from '../settings/layout.ts'
import { copyDurably, makeFolderDurably, refusesLink, syncFile, syncFolder } from '../system/durable.ts'
import { listGenerations, nextGenerationDir, publishedDirOf } from './generations.ts'
import { MANIFEST, type Manifest, writeManifest } from './manifest.ts'
import { folderMode, lookAt, share } from './sharing.ts'

/** Begin the next generation: an empty folder; what a publication that was cut off has left of one goes. */
export async function openNext(jobDir: string): Promise<string> {
  const { generationsDir } = foldersIn(jobDir)
  const dir = nextGenerationDir(jobDir)
  await makeFolderDurably(generationsDir)
  share(jobDir, generationsDir, folderMode(jobDir))
  await rm(dir, { recursive: true, force: true })
  await mkdir(dir)
  return dir
}

/**
 * Complete the next generation: its manifest, last of all, and every folder in it made durable.
 *
 * @throws the reason of `signal`, which is looked at between folders
 */
export async function closeNext(
  jobDir: string,
  dir: string,
  manifest: Manifest,
  signal?: AbortSignal,
): Promise<void> {
  const path = join(dir, MANIFEST)
  await writeManifest(path, manifest)
  share(jobDir, path, lookAt(join(publishedDirOf(jobDir), MANIFEST))?.mode)
  await syncFile(path)
  const folders = new Set([dir])
  for (const name of Object.keys(manifest.files)) {
    for (let at = posix.dirname(name); at !== '.'; at = posix.dirname(at)) folders.add(join(dir, at))
  }
  for (const folder of folders) {
    signal?.throwIfAborted()
    share(jobDir, folder, folderMode(jobDir))
    await syncFolder(folder)
  }
}

/** Set aside a generation that was not accepted; remove one that could not be published. */
export async function discard(jobDir: string, cause: unknown): Promise<void> {
  const [next, { candidateDir }] = [nextGenerationDir(jobDir), foldersIn(jobDir)]
  const code = cause instanceof TrainerError ? cause.code : undefined
  const settled = async () => {
    // Once another run has the lock, what is there is that one's.
    if (!existsSync(next) || code === 'locked') return
    if (code === 'not-accepted') {
      await rm(candidateDir, { recursive: true, force: true })
      await rename(next, candidateDir)
    } else await rm(next, { recursive: true, force: true })
  }
  await settled().catch(() => {}) // the disk is failing; the next start settles it
}

/** Give a file a name in a generation; one that may not have another, such as another user's, is copied. */
export async function linkIn(folder: string, dir: string, name: string): Promise<void> {
  await makeParents(dir, name)
  const [from, to] = [join(folder, name), join(dir, name)]
  if (lookAt(to)) return
  try {
    await link(from, to)
    await syncFile(to)
  } catch (error) {
    if (!refusesLink(error)) throw error
    await copyDurably(from, to)
  }
}

/** Make the folders on the way to a name. (Node's `recursive: true` hides why the system refuses one.) */
export async function makeParents(dir: string, name: string): Promise<void> {
  const parts = name.split('/').slice(0, -1)
  for (const index of parts.keys()) {
    try {
      await mkdir(join(dir, ...parts.slice(0, index + 1)))
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
    }
  }
}

/** The number of the generation that is being made: larger than any that is there. */
export function nextNumber(jobDir: string): number {
  return (listGenerations(jobDir).at(-1)?.number ?? 0) + 1
}
