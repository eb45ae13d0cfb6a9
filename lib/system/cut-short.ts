import {
  type BigIntStats,
  chmodSync,
  close,
  closeSync,
  constants,
  fstat,
  fstatSync,
  ftruncate,
  openSync,
} from 'node:fs'
import { O_PATH } from './mount-id.ts'

/** In these a file's blocks are counted; see inode(7). */
const BLOCK_BYTES = 512

/**
 * Open a file for writing, whatever its mode, if it is the one that is meant: a link is not followed, but one that /proc has to it.
 *
 * @returns undefined if it is not, or may not be written, as a program that runs
 */
export function openToCut(
  path: string | Buffer,
  isMeant: (stats: BigIntStats) => boolean,
  isProcLink = false,
): number | undefined {
  let found: number | undefined
  try {
    found = openSync(path, O_PATH | (isProcLink ? 0 : constants.O_NOFOLLOW))
    const stats = fstatSync(found, { bigint: true })
    if (!stats.isFile() || !isMeant(stats)) return undefined
    const reach = `/proc/self/fd/${found}`
    if (!(stats.mode & 0o200n)) chmodSync(reach, 0o600)
    return openSync(reach, constants.O_WRONLY | constants.O_NONBLOCK)
  } catch {
    return undefined
  } finally {
    if (found !== undefined) closeSync(found)
  }
}

/**
 * Make an open file so short that it takes no more blocks than it has, which takes no time: whoever fills it through a mapping, even
 * by a call that no signal ends, meets its end. What cannot be cut stays as it is.
 */
export function cutHoles(fd: number): Promise<void> {
  return new Promise(resolve =>
    fstat(fd, (fault, stats) => {
      const allocatedBytes = fault ? 0 : stats.blocks * BLOCK_BYTES
      if (fault || stats.size <= allocatedBytes) resolve()
      else ftruncate(fd, allocatedBytes, () => resolve())
    }),
  )
}

/** Take the content of an open file, and close it. To free gigabytes takes seconds. */
export function emptyAndClose(fd: number): Promise<void> {
  return new Promise(resolve => ftruncate(fd, 0, () => close(fd, () => resolve())))
}
