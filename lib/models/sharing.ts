import { chmodSync, lchownSync, lstatSync, type Stats, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isErrno } from '../errors.ts'
import { readProc } from '../system/processes.ts'
import type { Manifest } from './manifest.ts'

/**
 * The mode of the file that another takes the place of: a training's temporary files, renamed, would leave models that
 * only their owner can read.
 */
export function formerMode(
  publishedDir: string,
  previous: Manifest | undefined,
  original: string,
): number | undefined {
  const renamed = Object.entries(previous?.metadata.renamed ?? {}).find(([, it]) => it === original)?.[0]
  return (lookAt(join(publishedDir, renamed ?? original)) ?? lookAt(join(publishedDir, original)))?.mode
}

/** Return the mode of the job's folder, which those in it get. */
export function folderMode(jobDir: string): number {
  return statSync(jobDir).mode
}

/**
 * Make a file or a folder as readable as what it replaces, or as a new one, for the group of the models folder. Where one of
 * both is refused, the other is done.
 */
export function share(jobDir: string, path: string, mode = 0o666 & ~umask()): void {
  const stats = lstatSync(path)
  const { gid } = statSync(dirname(jobDir))
  if (stats.gid !== gid) unlessRefused(() => lchownSync(path, stats.uid, gid))
  if ((stats.mode & 0o777) !== (mode & 0o777)) unlessRefused(() => chmodSync(path, mode & 0o777))
}

function unlessRefused(change: () => void): void {
  try {
    change()
  } catch (error) {
    // The group is one that this user is not in, or the filesystem has no modes.
    if (!isErrno(error, 'EPERM', 'ENOTSUP', 'EINVAL')) throw error
  }
}

/** Node.js tells it only by setting it. */
function umask(): number {
  return Number.parseInt(/^Umask:\s*(\d+)/m.exec(readProc('self/status') ?? '')?.[1] ?? '022', 8)
}

/** Look at a path; undefined if nothing is there. */
export function lookAt(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch (error) {
    if (isErrno(error, 'ENOTDIR')) return undefined
    throw error
  }
}
