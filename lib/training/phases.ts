import { messageOf, TrainerError } from '../errors.ts'
import { publishedFiles } from '../models.ts'
import { checkUsage, enforceLimit, removeUnnamed } from '../storage.ts'
import { announce, type Job } from './job.ts'
import { postflight } from './postflight.ts'
import { preflight } from './preflight.ts'
import { train } from './train.ts'
import { waitForQuiet } from './wait-for-quiet.ts'

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
    // Before anything is deleted: what it says was used is used no longer then.
    announce(job, error)
    if (error instanceof TrainerError && error.usage) {
      await emptyWork(job).catch(reason => {
        const message = `unpublished files are left in ${job.workDir}: ${messageOf(reason)}`
        job.emit({ event: 'warning', job: name, message })
      })
    }
    throw error
  }
  const seconds = (performance.now() - startedMs) / 1000
  job.emit({ event: 'job.done', job: name, seconds, usedBytes: await checkUsage(job.dir) })
}

/**
 * After a violation that was measured, of the quota or of what a smaller disk leaves of it, all unpublished files go but
 * the checkpoints that fit: a half-written model is nothing to resume from, and would leave the next training no room.
 */
async function emptyWork({ quota, dir, run, onPrune }: Job): Promise<void> {
  if (run.command.dryRun) return
  const keep = await publishedFiles(dir, quota.models)
  await removeUnnamed(dir, { prune: quota.prune, keep, onPrune })
  await enforceLimit(dir, quota.maxDiskMb, { prune: quota.prune, keep, onPrune }).catch(() => {}) // told already
}
