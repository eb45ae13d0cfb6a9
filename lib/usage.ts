import { statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Measurement, type MeasureOptions, measure } from './storage/measurement.ts'
import { freeSpace } from './storage.ts'
import { temporaryFolder } from './trainer/containment.ts'
import { listOpenFiles } from './trainer/open-files.ts'
import type { Training } from './trainer.ts'

/** One look at a job's folder; figures in bytes, what may be pruned oldest first. */
export type Look = Measurement & { freeBytes: number }

/** Walk the folder. */
export async function lookAt(dir: string, options: MeasureOptions): Promise<Look> {
  return { ...(await measure(dir, options)), freeBytes: freeSpace(dir) }
}

/** The kernel's own account of a filesystem: 3 µs whatever it holds; deleted files that are still open are in it. */
export function accountOf(dir: string): Omit<Look, 'prunable'> {
  const { blocks, bfree, bavail, bsize } = statfsSync(dir)
  return { usedBytes: (blocks - bfree) * bsize, freeBytes: bavail * bsize }
}

/** Bytes of the folder's files that no walk sees: deleted, but still open or mapped by the training. */
export function deletedBytes(dir: string, training: Training): number {
  // In a sandbox those are folders of the job.
  const isCharged = (path: string) => path.startsWith(`${dir}/`) || temporaryFolder.test(path)
  return listOpenFiles(training.processes())
    .filter(({ path }) => isCharged(path))
    .reduce((sum, file) => sum + file.deletedBytes, 0)
}

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
