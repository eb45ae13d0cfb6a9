import { TrainerError } from '../errors.ts'
import { formatBytes } from '../text.ts'

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
