import { statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { messageOf, TrainerError } from '../errors.ts'

/** The size of the folder's own filesystem; undefined if it shares that of the folder it is in. */
export function ownSizeOf(dir: string): number | undefined {
  const parentDir = dirname(dir)
  const sizeOf = (path: string) => {
    const { blocks, bsize } = statfsSync(path)
    return blocks * bsize
  }
  const sizeBytes = sizeOf(dir)
  const isOwn = statSync(dir).dev !== statSync(parentDir).dev || sizeBytes !== sizeOf(parentDir)
  return isOwn ? sizeBytes : undefined
}

/**
 * The size of the folder's own filesystem, if it has one no larger than the quota: the kernel lets nothing pass it.
 * A prepared volume is one; a folder under an XFS or ext4 project quota looks like one to statfs.
 */
export function capOf(dir: string, quotaBytes: number): number | undefined {
  const sizeBytes = ownSizeOf(dir)
  return sizeBytes !== undefined && sizeBytes <= quotaBytes ? sizeBytes : undefined
}

/** The kernel's own account of a filesystem: 3 µs whatever it holds; deleted files that are still open are in it. */
export function accountOf(dir: string): { usedBytes: number; freeBytes: number } {
  const { blocks, bfree, bavail, bsize } = statfsSync(dir)
  return { usedBytes: (blocks - bfree) * bsize, freeBytes: bavail * bsize }
}

/** The bytes that a program without privileges can still write to the filesystem of `dir`. */
export function freeSpace(dir: string): number {
  try {
    const { bavail, bsize } = statfsSync(dir)
    return bavail * bsize
  } catch (cause) {
    throw new TrainerError('storage', `Cannot tell the free space of ${dir}: ${messageOf(cause)}`, { cause })
  }
}
