import { statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

/**
 * The size of the folder's own filesystem, if it has one no larger than the quota: the kernel lets nothing pass it.
 * A prepared volume is one; a folder under an XFS or ext4 project quota looks like one to statfs.
 */
export function capOf(dir: string, quotaBytes: number): number | undefined {
  const parentDir = dirname(dir)
  const sizeOf = (path: string) => {
    const { blocks, bsize } = statfsSync(path)
    return blocks * bsize
  }
  const sizeBytes = sizeOf(dir)
  const isOwn = statSync(dir).dev !== statSync(parentDir).dev || sizeBytes !== sizeOf(parentDir)
  return isOwn && sizeBytes <= quotaBytes ? sizeBytes : undefined
}
