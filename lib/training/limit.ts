import { TrainerError } from '../errors.ts'
import type { JobName } from '../quotas.ts'
import type { Look } from '../storage/measure.ts'
import { formatBytes } from '../text.ts'
import { listOpenFiles } from './open-files.ts'
import type { Training } from './process.ts'
import { temporaryFolder } from './sandbox.ts'

/** All figures in bytes. */
export type Situation = {
  /** For messages. */
  job: string
  dir: string
  quotaBytes: number
  /** Charged now, after pruning. */
  usedBytes: number
  /** Of `usedBytes`: what pruning could not take. */
  keptBytes: number
  /** Free on the filesystem of `dir`. */
  freeBytes: number
  /** Of `freeBytes`: not the job's to use. */
  reserveBytes: number
  /** What a training must be able to write for a start to make sense. */
  minFreeBytes: number
}

/**
 * The limit of this run: the quota, or less where the disk holds less.
 *
 * @throws {TrainerError} `quota-exceeded` if what cannot be pruned fills the quota; `no-space` if the disk leaves
 * too little: hours of training would end in the same
 */
export function planBudget(situation: Situation): number {
  const { job, dir, quotaBytes, usedBytes, keptBytes, freeBytes, reserveBytes, minFreeBytes } = situation
  if (keptBytes >= quotaBytes) {
    throw new TrainerError(
      'quota-exceeded',
      `Model too large for quota: ${job} holds ${formatBytes(keptBytes)} in ${dir} that is never pruned, ` +
        `its quota is ${formatBytes(quotaBytes)}; raise it by more than ${formatBytes(keptBytes - quotaBytes)} or remove a model`,
      { usage: { usedBytes, limitBytes: quotaBytes } },
    )
  }
  const limitBytes = Math.min(quotaBytes, Math.max(0, usedBytes + freeBytes - reserveBytes))
  if (limitBytes < quotaBytes && limitBytes - keptBytes < minFreeBytes) {
    throw new TrainerError(
      'no-space',
      `Cannot start ${job}: ${formatBytes(freeBytes)} free on ${dir}, ` +
        `${formatBytes(minFreeBytes + reserveBytes)} needed (minFreeMb ${formatBytes(minFreeBytes)}, reserve ${formatBytes(reserveBytes)}); free some and start again`,
    )
  }
  return limitBytes
}

/** What a training may use, in bytes, and where. */
export type Limit = {
  job: JobName
  dir: string
  limitBytes: number
  /** Is it less than the quota, because the disk holds no more? */
  isDiskLimit: boolean
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

/** Bytes of the folder's files that no walk sees: deleted, but still open or mapped by the training. */
export function deletedBytes(dir: string, training: Training): number {
  // In a sandbox those are folders of the job.
  const isCharged = (path: string) => path.startsWith(`${dir}/`) || temporaryFolder.test(path)
  return listOpenFiles(training.processes())
    .filter(({ path }) => isCharged(path))
    .reduce((sum, file) => sum + file.deletedBytes, 0)
}
