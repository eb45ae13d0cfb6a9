import { statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { messageOf, TrainerError } from '../errors.ts'
import { areOnOneMount } from '../system/mount-id.ts'

/** The size of the folder's own filesystem; undefined if it shares that of the folder it is in. */
export function ownSizeOf(dir: string): number | undefined {
  const parentDir = dirname(dir)
  const sizeOf = (path: string) => {
    const { blocks, bsize } = statfsSync(path)
    return blocks * bsize
  }
  const sizeBytes = sizeOf(dir)
  const isShared =
    sizeBytes === sizeOf(parentDir) &&
    (statSync(dir).dev === statSync(parentDir).dev || areOnOneMount(dir, parentDir))
  return isShared ? undefined : sizeBytes
}

/**
 * The size of the folder's own filesystem, if it has one no larger than the quota: the kernel lets nothing pass it.
 * A prepared volume is one; a folder under an XFS or ext4 project quota looks like one to statfs.
 */
export function capOf(dir: string, quotaBytes: number): number | undefined {
  const sizeBytes = ownSizeOf(dir)
  return sizeBytes !== undefined && sizeBytes <= quotaBytes ? sizeBytes : undefined
}

/** A filesystem's own account. */
export type FilesystemAccount = {
  usedBytes: number
  /** Writable for a program without privileges. */
  freeBytes: number
  usedInodes: number
  /** Infinite where inodes are not counted (btrfs). */
  freeInodes: number
}

/**
 * The kernel's own account of a filesystem: 3 µs whatever it holds; deleted files that are still open are in it.
 *
 * @throws {TrainerError} `storage`: it cannot be told
 */
export function accountOf(dir: string): FilesystemAccount {
  try {
    const { blocks, bfree, bavail, bsize, files, ffree } = statfsSync(dir)
    return {
      usedBytes: (blocks - bfree) * bsize,
      freeBytes: bavail * bsize,
      usedInodes: files - ffree,
      freeInodes: files > 0 ? ffree : Number.POSITIVE_INFINITY,
    }
  } catch (cause) {
    throw new TrainerError('storage', `Cannot tell the free space of ${dir}: ${messageOf(cause)}`, { cause })
  }
}

/** The bytes that a program without privileges can still write to the filesystem of `dir`. */
export function freeSpace(dir: string): number {
  return accountOf(dir).freeBytes
}

/** The numbers by which statfs(2) calls filesystems that make inodes out of the room for files. */
const inodeBytes = new Map([
  [0x58465342, 512], // XFS
  [0x9123683e, 1024], // btrfs: inode, names and references, twice; measured 790 of an empty file
])

/** Tell what every file takes of the room for files on the filesystem of `dir`, beside its blocks. */
export function inodeBytesOn(dir: string): number {
  return inodeBytes.get(statfsSync(dir).type) ?? 0
}
