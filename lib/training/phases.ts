import { messageOf, TrainerError } from '../errors.ts'
import { stateDirOf } from '../layout.ts'
import { publishedFiles, supersededFiles } from '../models.ts'
import { assertOwnLock } from '../run/lost-lock.ts'
import type { Job } from '../run.ts'
import { checkUsage, pruneTo, removeUnnamed } from '../storage.ts'
import { noteFailure, noteLostBest, noteSuccess, tellOfLostBest } from './attempts.ts'
import { announce } from './job.ts'
import { postflight } from './postflight.ts'
import { preflight } from './preflight.ts'
import { closeScratch, openScratch } from './scratch.ts'
import { train } from './train.ts'
import { waitForQuiet } from './wait-for-quiet.ts'

/** The phases of a job's training, in their order. */
export type Phases = { preflight: typeof preflight; train: typeof train; postflight: typeof postflight }

/**
 * Go through the phases of one job when the machine is quiet; tell how it ends, and clean up after a failure.
 *
 * @throws {TrainerError} of the phase that failed, but for a model that was not accepted; by then it is an event and
 * nothing published has changed
 */
export async function attempt(job: Job, steps: (phases: Phases) => Promise<void>): Promise<void> {
  const { name, publishedDir, workDir, run, emit } = job
  const startedMs = performance.now()
  try {
    run.signal.throwIfAborted()
    if (run.jobs.some(({ state }) => state === 'trained')) await waitForQuiet(run, name)
    if (!run.command.dryRun) assertOwnLock(stateDirOf(run.modelsDir))
    job.state = 'training'
    await openScratch(job)
    await steps({ preflight, train, postflight })
    job.state = 'trained'
    if (!run.command.dryRun) {
      tellOfLostBest(job)
      await noteSuccess(job)
    }
  } catch (error) {
    const isRefused = error instanceof TrainerError && error.code === 'not-accepted'
    job.state = isRefused ? 'refused' : 'failed'
    // Announce before deleting: afterwards less is used than the message says.
    announce(job, error)
    // The training itself went well: the others have their turn, and the run ends with the exit code of this.
    if (isRefused) {
      await noteSuccess(job)
      return
    }
    const isFailure = error instanceof TrainerError && error.code === 'training-failed'
    // What this run has pruned is no fault of the checkpoint.
    if (isFailure && !error.isOfPruning) await noteFailure(job)
    if (error instanceof TrainerError && error.usage && !error.isRefusal) {
      await emptyWork(job).catch(reason => {
        const message = `unpublished files are left in ${workDir}: ${messageOf(reason)}`
        emit({ event: 'warning', job: name, message })
      })
    }
    const isOurs = !(error instanceof TrainerError && error.code === 'locked')
    if (!run.command.dryRun && isOurs) await noteLostBest(job).catch(() => {}) // on a full disk the failure is what counts
    throw error
  } finally {
    await closeScratch(job)
  }
  if (run.command.dryRun) return
  const seconds = (performance.now() - startedMs) / 1000
  emit({ event: 'job.done', job: name, seconds, usedBytes: await checkUsage(publishedDir) })
}

/**
 * Delete all unpublished files but the checkpoints that fit, after a violation that was measured, of the quota or of what
 * a smaller disk leaves of it. A half-written model is nothing to resume from, and would leave the next training no room.
 */
async function emptyWork({ quota, jobDir, run, onPrune, onFault }: Job): Promise<void> {
  if (run.command.dryRun) return
  const keep = await publishedFiles(jobDir, quota.models)
  const options = { ...quota.globs, superseded: supersededFiles(jobDir), keep, onPrune, onFault }
  await removeUnnamed(jobDir, options)
  await pruneTo(jobDir, quota.quotaBytes, options).catch(() => {}) // announced above
}
