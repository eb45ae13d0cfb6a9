import { messageOf, TrainerError } from './errors.ts'
import type { Job } from './job.ts'
import { publishedFiles } from './models.ts'
import { postflight } from './phases/postflight.ts'
import { preflight } from './phases/preflight.ts'
import { train } from './phases/train.ts'
import { waitForQuiet } from './run/load.ts'
import { measure } from './storage/measurement.ts'
import { checkUsage, enforceLimit, pruneOldest } from './storage.ts'

/**
 * Pre-flight, train, post-flight of one job.
 *
 * @throws {TrainerError} of the phase that failed; by then it is an event and nothing published has changed
 */
export async function runPhases(job: Job): Promise<void> {
  const { name, run } = job
  const startedMs = performance.now()
  try {
    run.signal.throwIfAborted()
    if (run.trained.size) await waitForQuiet(run, name)
    run.trained.add(name)
    const budget = await preflight(job)
    if (run.command.dryRun) return
    const report = await train(job, budget)
    await postflight(job, budget, report)
  } catch (error) {
    run.trained.delete(name)
    await emptyWork(job, error)
    announce(job, error)
    throw error
  }
  const seconds = (performance.now() - startedMs) / 1000
  job.emit({ event: 'job.done', job: name, seconds, usedBytes: await checkUsage(job.dir) })
}

/**
 * When there was too little room, all unpublished files go but the checkpoints that fit: a half-written model is nothing
 * to resume from, and would leave the next training no room.
 */
async function emptyWork({ quota, dir, run, onPrune }: Job, error: unknown): Promise<void> {
  const isAboutRoom = error instanceof TrainerError && ['quota-exceeded', 'no-space'].includes(error.code)
  if (!isAboutRoom || run.command.dryRun) return
  const keep = await publishedFiles(dir, quota.models)
  const { usedBytes, prunable } = await measure(dir, { prune: [...quota.prune, 'work/**'], keep })
  const remains = prunable.filter(({ rule, isFolder }) => rule === 'work/**' && !isFolder)
  await pruneOldest(dir, remains, { usedBytes, targetBytes: 0, onPrune })
  await enforceLimit(dir, quota.maxDiskMb, { prune: quota.prune, keep, onPrune }).catch(() => {}) // told already
}

/** Say why a job failed, as events. */
export function announce({ name, emit }: Job, error: unknown): void {
  const message = messageOf(error)
  if (error instanceof TrainerError && error.usage) {
    emit({ event: 'quota.exceeded', job: name, ...error.usage, message })
  }
  emit({
    event: 'job.fail',
    job: name,
    code: error instanceof TrainerError ? error.code : 'internal',
    message,
  })
}
