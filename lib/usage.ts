import { statfsSync } from 'node:fs'
import { TrainerError } from './errors.ts'
import type { JobName } from './quotas.ts'
import { type Measurement, type MeasureOptions, measure } from './storage/measurement.ts'
import { freeSpace } from './storage.ts'
import { formatBytes } from './text.ts'
import { temporaryFolder } from './trainer/containment.ts'
import { listOpenFiles } from './trainer/open-files.ts'
import type { Training } from './trainer.ts'

/** One look at a job's folder; figures in bytes, what may be pruned oldest first. */
export type Look = Omit<Measurement, 'named'> & { freeBytes: number }

/** What a training may use, in bytes, and where. */
export type Limit = {
  job: JobName
  dir: string
  limitBytes: number
  /** Is it less than the quota, because the disk holds no more? */
  isDiskLimit: boolean
}

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

/** The failure of a training that its limit has stopped: `how` it was. */
export function limitReached(limit: Limit, look: Omit<Look, 'prunable'>, how: string): TrainerError {
  const { job, dir, limitBytes, isDiskLimit } = limit
  if (isDiskLimit) return diskFull(limit, look, 'the disk holds less than its quota')
  const { usedBytes } = look
  const used = `${formatBytes(usedBytes)} of ${formatBytes(limitBytes)} used`
  return new TrainerError(
    'quota-exceeded',
    `Model too large for quota: ${job}'s training ${how} with ${used} in ${dir}; raise its maxDiskMb or make it write less`,
    { usage: { usedBytes, limitBytes } },
  )
}

/** The failure of a training inside its limit on a disk that is full. */
export function diskFull(
  { job, dir, limitBytes }: Limit,
  { usedBytes, freeBytes }: Omit<Look, 'prunable'>,
  why = 'other programs fill the disk',
): TrainerError {
  return new TrainerError(
    'no-space',
    `Stopped ${job}: ${why}, ${formatBytes(freeBytes)} free on ${dir} with ` +
      `${formatBytes(usedBytes)} of ${formatBytes(limitBytes)} used by ${job}; free some and start again`,
  )
}
