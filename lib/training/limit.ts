import { TrainerError } from '../errors.ts'
import type { JobName } from '../quotas.ts'
import type { FilesystemAccount } from '../storage/capacity.ts'
import { count, formatBytes } from '../text.ts'

/** A job's usage of its filesystem, and what that has left for programs without privileges. */
export type Figures = { usedBytes: number; usedInodes: number; freeBytes: number; freeInodes: number }

/** So much of both. */
export type Amounts = { bytes: number; inodes: number }

/** Before a training: also what a walk found, and what the filesystem said of itself before that. */
export type Start = Figures & { walkedBytes: number; account: FilesystemAccount }

/** The limits of a training, and where they hold. */
export type Limit = {
  job: JobName
  dir: string
  limitBytes: number
  /** As many as the disk held at the start; infinite where inodes are not counted. */
  limitInodes: number
  /** Is it less than the quota, because the disk holds no more? */
  isDiskLimit: boolean
  /** Left free on a shared disk for the rest of the machine; zero where the job has a filesystem of its own. */
  reserveBytes: number
  reserveInodes: number
  /** Is the job's folder a filesystem of its own, no larger than the quota? */
  isCapped: boolean
}

/** Room beside one largest file, for folders and small files. */
export const FILE_SLACK_BYTES = 256 * 1024

/** The least number of files that a training must be able to make for a start to make sense. */
export const MIN_FREE_INODES = 64

export type Situation = Figures & {
  /** For messages. */
  job: string
  dir: string
  quotaBytes: number
  /** The part of `usedBytes` that pruning could not take. */
  keptBytes: number
  /** The part of what is free that is not the job's to use. */
  reserveBytes: number
  reserveInodes: number
  /** The least that a training must be able to write for a start to make sense. */
  minFreeBytes: number
  /** As in {@link Limit}. */
  isCapped: boolean
}

/**
 * The limit of this run: the quota, or less where the disk holds less; and of inodes what the disk holds.
 *
 * @throws {TrainerError} `quota-exceeded` if what cannot be pruned fills the quota, or the inodes of its volume; `no-space` if
 * the disk leaves too little: hours of training would end in the same
 */
export function planBudget(situation: Situation): Pick<Limit, 'limitBytes' | 'limitInodes'> {
  const { job, dir, quotaBytes, usedBytes, keptBytes, freeBytes, reserveBytes, minFreeBytes } = situation
  const { usedInodes, freeInodes, reserveInodes } = situation
  if (keptBytes >= quotaBytes) throw filledForGood(situation)
  const limitBytes = Math.min(quotaBytes, Math.max(0, usedBytes + freeBytes - reserveBytes))
  if (limitBytes < quotaBytes && limitBytes - keptBytes < minFreeBytes) {
    throw new TrainerError(
      'no-space',
      `Cannot start ${job}: ${formatBytes(freeBytes)} free on ${dir}, ` +
        `${formatBytes(minFreeBytes + reserveBytes)} needed (minFreeMb ${formatBytes(minFreeBytes)}, reserve ${formatBytes(reserveBytes)}); free some space there and start again`,
    )
  }
  const limitInodes = usedInodes + freeInodes - reserveInodes
  if (limitInodes - usedInodes < MIN_FREE_INODES) {
    if (situation.isCapped)
      throw tooManyFiles({ job, dir, limitBytes, limitInodes }, situation, 'cannot start')
    throw new TrainerError(
      'no-space',
      `Cannot start ${job}: ${count(freeInodes, 'inode')} free on ${dir}, ${MIN_FREE_INODES + reserveInodes} needed ` +
        `(reserve ${reserveInodes}); delete files there, whatever their size, and start again`,
    )
  }
  return { limitBytes, limitInodes }
}

/** Say that a training's volume can hold no more files, whatever their size: `how` it was. */
export function tooManyFiles(
  {
    job,
    dir,
    limitBytes,
    limitInodes,
  }: Pick<Situation, 'job' | 'dir'> & Pick<Limit, 'limitBytes' | 'limitInodes'>,
  { usedBytes, usedInodes }: Pick<Figures, 'usedBytes' | 'usedInodes'>,
  how: string,
): TrainerError {
  return new TrainerError(
    'quota-exceeded',
    `Too many files for quota: ${job}'s training ${how} with ${usedInodes} of ${limitInodes} inodes used in ${dir}; ` +
      'make it write fewer files, or raise its maxDiskMb and make its volume anew',
    { usage: { usedBytes, limitBytes } },
  )
}

/** Say that files which are never pruned leave nothing of a job's quota. */
export function filledForGood(
  {
    job,
    dir,
    usedBytes,
    keptBytes,
    quotaBytes,
  }: Pick<Situation, 'job' | 'dir' | 'usedBytes' | 'keptBytes' | 'quotaBytes'>,
  options: { isRefusal?: boolean } = {},
): TrainerError {
  return new TrainerError(
    'quota-exceeded',
    `Model too large for quota: ${job} holds ${formatBytes(keptBytes)} in ${dir} that is never pruned, ` +
      `its quota is ${formatBytes(quotaBytes)}; raise it by more than ${formatBytes(keptBytes - quotaBytes)}, or remove what is not needed there`,
    { usage: { usedBytes, limitBytes: quotaBytes }, ...options },
  )
}

/** Tell what a job may use now: its limit, or what others leave of the disk, whichever is less. */
export function limitNow(
  { limitBytes, limitInodes, reserveBytes, reserveInodes }: Limit,
  { usedBytes, usedInodes, freeBytes, freeInodes }: Figures,
): Amounts {
  return {
    bytes: Math.min(limitBytes, usedBytes + freeBytes - reserveBytes),
    inodes: Math.min(limitInodes, usedInodes + freeInodes - reserveInodes),
  }
}

export function isAbove({ usedBytes, usedInodes }: Figures, { bytes, inodes }: Amounts): boolean {
  return usedBytes > bytes || usedInodes > inodes
}
