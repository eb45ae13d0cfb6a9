import type { BigIntStats, Stats } from 'node:fs'
import { TrainerError } from '../errors.ts'
import { findWork } from '../storage/measure.ts'
import { walk } from '../storage/walk.ts'
import { describeViolation, type EnforceOptions } from '../storage.ts'
import { formatBytes, MIB } from '../text.ts'
import { maxFileBytesOf } from './containment.ts'
import { FILE_SLACK_BYTES, type Figures, type Limit, tooManyFiles } from './limit.ts'
import type { Budget } from './preflight.ts'
import type { TrainingExit } from './process.ts'
import type { Progress } from './progress.ts'

/** The kernel's own error for a file that may not grow, as Node.js and Python name it; only RLIMIT_FSIZE causes it. */
const fileLimitError = /\bEFBIG\b|\[Errno 27\]/

/** The measurements when a training ended, and when it was fullest. */
export type Measured = { end: Figures; fullest: Figures | undefined; isFileAtLimit: boolean }

/**
 * Has a file in the output folder grown to the limit of its size? The signal for that, SIGXFSZ, is no evidence by itself: a
 * training can send it to itself, or end with the exit code that stands for it.
 */
export async function hasFileAtLimit(budget: Budget, signal: AbortSignal): Promise<boolean> {
  const most = maxFileBytesOf(budget)
  let isThere = false
  const visitor = {
    isExact: () => false,
    visit(_folder: unknown, _name: unknown, stats: Stats | BigIntStats) {
      isThere ||= stats.isFile() && stats.size >= most
    },
  }
  await walk<void>(findWork(budget.dir), undefined, visitor, signal)
  return isThere
}

/**
 * Was it the quota, or others on the disk, that stopped this training? Only what was measured when it ended tells; its
 * words alone are no evidence, since they may be about anything. Undefined if space was not the matter.
 *
 * @param pruning says what goes, and who is told of it, if it is above its limit
 */
export async function explainSpace(
  budget: Budget,
  { end, fullest, isFileAtLimit }: Measured,
  { signal }: TrainingExit,
  { saysOutOfSpace, lastError = '' }: Progress,
  pruning: EnforceOptions,
): Promise<TrainerError | undefined> {
  const { limitBytes, limitInodes, reserveBytes, reserveInodes, isCapped } = budget
  // On a filesystem of its own the kernel has counted, also what it has deleted by now.
  const looks = isCapped && (saysOutOfSpace || signal === 'SIGBUS') && fullest ? [end, fullest] : [end]
  const figures = looks.reduce((a, b) => (b.freeBytes < a.freeBytes || b.freeInodes < a.freeInodes ? b : a))
  const { usedBytes, usedInodes, freeBytes, freeInodes } = figures
  const how = 'ran into its limit'
  const isAtLimit = usedBytes > Math.min(0.97 * limitBytes, limitBytes - 2 * FILE_SLACK_BYTES)
  // A write of which not all finds room may be refused whole.
  const isFull = isCapped && freeBytes < Math.max(0.03 * limitBytes, 2 * MIB)
  if (
    isAtLimit ||
    (signal === 'SIGXFSZ' && isFileAtLimit) ||
    (isFull && (saysOutOfSpace || signal === 'SIGBUS'))
  ) {
    const rest = await describeViolation(budget.dir, { usedBytes, limitBytes }, pruning)
    return limitReached(budget, figures, how, rest)
  }
  // Asked for at once, by truncate() or fallocate(), such a file does not grow at all.
  if (signal === 'SIGXFSZ' || fileLimitError.test(lastError)) return fileRefused(budget, figures)
  if (usedInodes > 0.97 * limitInodes) return inodesGone(budget, figures, how)
  if (!saysOutOfSpace) return undefined
  if (freeInodes <= reserveInodes) return inodesGone(budget, figures, how)
  return freeBytes <= reserveBytes ? diskFull(budget, figures) : undefined
}

/** The failure of a training that its limit has stopped: `how` it was, and what is left that fills it. */
export function limitReached(limit: Limit, figures: Figures, how: string, rest = ''): TrainerError {
  const { job, dir, limitBytes, isDiskLimit } = limit
  if (isDiskLimit)
    return diskFull(limit, figures, 'the disk holds less than its quota', { isOwn: true, rest })
  const { usedBytes } = figures
  const used = `${formatBytes(usedBytes)} of ${formatBytes(limitBytes)} used`
  return new TrainerError(
    'quota-exceeded',
    `Model too large for quota: ${job}'s training ${how} with ${used} in ${dir}; ${rest}raise its maxDiskMb or make it write less`,
    { usage: { usedBytes, limitBytes } },
  )
}

/** The failure of a training that asked for a file beyond its limit, which the kernel refused. */
function fileRefused({ job, dir, limitBytes }: Limit, { usedBytes }: Figures): TrainerError {
  return new TrainerError(
    'quota-exceeded',
    `Model too large for quota: ${job}'s training asked for a file larger than its limit of ${formatBytes(limitBytes)} allows, ` +
      `with ${formatBytes(usedBytes)} used in ${dir}; raise its maxDiskMb or make it write less`,
    { usage: { usedBytes, limitBytes }, isRefusal: true },
  )
}

/** The failure of a training inside its quota on a disk that is full; `isOwn` if others have no part in that. */
export function diskFull(
  { job, dir, limitBytes }: Limit,
  { usedBytes, freeBytes }: Figures,
  why = 'other programs fill the disk',
  { isOwn = false, rest = '' } = {},
): TrainerError {
  return new TrainerError(
    'no-space',
    `Stopped ${job}: ${why}, ${formatBytes(freeBytes)} free on ${dir} with ` +
      `${formatBytes(usedBytes)} of ${formatBytes(limitBytes)} used by ${job}; ${rest}free some space there and start again`,
    isOwn ? { usage: { usedBytes, limitBytes } } : {},
  )
}

/** The failure of a training that was taken to hide what others have written. */
export function endedByMistake({ job, dir }: Limit, hiddenBytes: number): TrainerError {
  return new TrainerError(
    'training-failed',
    `Stopped ${job} by mistake: ${formatBytes(hiddenBytes)} that others have written on the disk of ${dir} were taken for files ` +
      'that its training had deleted and held; give its models a disk or a volume of their own, or start again while others write less there',
    { sparesCheckpoint: true, isMistake: true },
  )
}

/** The failure of a training on a filesystem that can hold no more files, whatever their size: `how` it was. */
export function inodesGone(limit: Limit, figures: Figures, how: string): TrainerError {
  if (limit.isCapped) return tooManyFiles(limit, figures, how)
  const { job, dir, limitBytes, limitInodes } = limit
  const { usedBytes, usedInodes, freeInodes } = figures
  const isOwn = usedInodes > limitInodes / 2
  const who = isOwn ? 'its files use up' : 'other programs use up'
  const remedy = isOwn ? 'make it write fewer files' : 'delete files there, whatever their size'
  return new TrainerError(
    'no-space',
    `Stopped ${job}: ${who} the inodes of the disk, ${freeInodes} free on ${dir} with ${usedInodes} used by ${job}; ` +
      `${remedy}, and start again`,
    isOwn ? { usage: { usedBytes, limitBytes } } : {},
  )
}

/** A violation that the guard finds while a training ends becomes the cause of its error, not the error. */
export async function withViolation(error: unknown, guarding: Promise<unknown>): Promise<unknown> {
  const cause: unknown = await guarding.then(
    () => undefined,
    reason => reason,
  )
  if (!(error instanceof TrainerError && cause instanceof TrainerError) || cause === error) return error
  return new TrainerError(error.code, error.message, { cause })
}
