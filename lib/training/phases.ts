import { messageOf, TrainerError, type Usage } from '../errors.ts'
import { publishedFiles, supersededFiles } from '../models.ts'
import { assertOwnLock } from '../run/lost-lock.ts'
import type { Job } from '../run.ts'
import { stateDirOf } from '../settings/layout.ts'
import { lookAt } from '../storage/measure.ts'
import {
  checkUsage,
  describeViolation,
  type EnforceOptions,
  pruneForRoom,
  pruneTo,
  removeUnnamed,
} from '../storage.ts'
import { noteFailure, noteLostBest, noteSuccess, tellOfLostBest } from './attempts.ts'
import { announce, assertSameFolder } from './job.ts'
import { isAbove } from './limit.ts'
import { postflight } from './postflight.ts'
import { type Budget, preflight } from './preflight.ts'
import { openScratch } from './scratch.ts'
import { inodesGone, limitReached } from './space-failure.ts'
import { train } from './train.ts'
import { waitForQuiet } from './wait-for-quiet.ts'

/** A run that was interrupted ends soon, whatever the disk; the next start prunes too. */
const MOST_MS = 10_000

/** A training begins again so often. */
const MOST_MISTAKES = 3

/** The phases of a job's training, in their order. */
export type Phases = { preflight: typeof preflight; train: typeof train; postflight: typeof postflight }

/**
 * Go through the phases of one job when the machine is quiet; tell how it ends, and clean up after a failure.
 *
 * @throws {TrainerError} of the phase that failed, but for a model that was not accepted; by then it is an event and
 * nothing published has changed
 */
export async function attempt(job: Job, steps: (phases: Phases) => Promise<void>): Promise<void> {
  const { name, publishedDir, workDir, quota, run, emit } = job
  const startedMs = performance.now()
  let budget: Budget | undefined
  let closeScratch = async () => {}
  const prepare = async (job: Job) => (budget = await preflight(job))
  /** Its training has gone well, and `accept`'s command, if there is one, has written after the last prune. */
  const succeed = async (isRefused: boolean) => {
    await noteSuccess(job, isRefused).catch(reason => warnOfNote(job, reason))
    if (budget && quota.accept?.command) await bringInside(job, budget)
  }
  try {
    run.signal.throwIfAborted()
    if (run.jobs.some(({ state }) => state === 'trained' || state === 'refused'))
      await waitForQuiet(run, name)
    if (!run.command.dryRun) assertOwnLock(stateDirOf(run.modelsDir))
    job.state = 'training'
    closeScratch = await openScratch(job)
    await unlessMistaken(job, () => steps({ preflight: prepare, train, postflight }))
    job.state = 'trained'
    if (!run.command.dryRun) {
      tellOfLostBest(job)
      await succeed(false)
    }
  } catch (error) {
    const isRefused = error instanceof TrainerError && error.code === 'not-accepted'
    job.state = isRefused ? 'refused' : 'failed'
    // Announce before deleting: afterwards less is used than the message says.
    announce(job, error)
    // The training itself went well: the others have their turn, and the run ends with the exit code of this.
    if (isRefused) {
      await succeed(true)
      return
    }
    const isFailure = error instanceof TrainerError && error.code === 'training-failed'
    if (isFailure && !error.sparesCheckpoint) await noteFailure(job).catch(reason => warnOfNote(job, reason))
    // By then the files there are the other run's.
    const isOurs = !(error instanceof TrainerError && error.code === 'locked')
    if (error instanceof TrainerError && error.usage && !error.isRefusal) {
      await emptyWork(job, budget, error.usage, error.message).catch(reason => {
        const message = `unpublished files are left in ${workDir}: ${messageOf(reason)}`
        emit({ event: 'warning', job: name, message })
      })
    } else if (budget && isOurs) await bringInside(job, budget, error)
    if (!run.command.dryRun && isOurs) await noteLostBest(job).catch(() => {}) // on a full disk the failure is what counts
    throw error
  } finally {
    await closeScratch()
  }
  if (run.command.dryRun) return
  const seconds = (performance.now() - startedMs) / 1000
  emit({ event: 'job.done', job: name, seconds, usedBytes: await checkUsage(publishedDir) })
}

/** Begin again, from the newest checkpoint, while a training is ended for what others have done. */
async function unlessMistaken({ name, emit }: Job, steps: () => Promise<void>): Promise<void> {
  for (let mistakes = 0; ; mistakes++) {
    try {
      return await steps()
    } catch (error) {
      if (!(error instanceof TrainerError && error.isMistake) || mistakes === MOST_MISTAKES) throw error
      emit({
        event: 'warning',
        job: name,
        message: `${error.message}; it begins again from its newest checkpoint`,
      })
    }
  }
}

/**
 * Delete all unpublished files but the checkpoints that fit, after a violation that was measured, of the quota or of what
 * a smaller disk leaves of it. A half-written model is nothing to resume from, and would leave the next training no room.
 *
 * @param told the message of the violation; that it is still above its limit is not told twice
 */
async function emptyWork(job: Job, budget: Budget | undefined, usage: Usage, told: string): Promise<void> {
  const { quota, jobDir, run } = job
  if (run.command.dryRun) return
  assertOwnLock(stateDirOf(run.modelsDir))
  if (budget) assertSameFolder(job, budget.folderId)
  const rules = await rulesOf(job)
  await removeUnnamed(jobDir, usage, rules)
  await pruneTo(jobDir, Math.min(quota.quotaBytes, usage.limitBytes), rules).catch(reason => {
    const why = messageOf(reason)
    if (why !== told) warnOfRest(job, why)
  })
}

/** A training's outcome is what counts, and stays; its next start may lack what could not be noted. */
function warnOfNote({ name, emit }: Job, reason: unknown): void {
  const message = `how this training came out cannot be noted for its next start: ${messageOf(reason)}`
  emit({ event: 'warning', job: name, message })
}

function warnOfRest({ name, jobDir, emit }: Job, why: string): void {
  emit({ event: 'warning', job: name, message: `${jobDir} may be left above its limit: ${why}` })
}

/**
 * Bring the job's folder inside the limit of this run, if a training or `accept`'s command has left it above: who is ended
 * can write more in a burst than the guard has seen. Its oldest checkpoints go; where they are not enough, what a violation
 * leaves nothing of goes first. The violation is told; the job ends as it would have.
 *
 * @param error why the job has failed, if it has; its cause may be a violation that the guard has found meanwhile
 */
async function bringInside(job: Job, budget: Budget, error?: unknown): Promise<void> {
  const { name, jobDir, run, emit } = job
  if (run.command.dryRun) return
  const signal = AbortSignal.timeout(MOST_MS)
  try {
    assertOwnLock(stateDirOf(run.modelsDir))
    assertSameFolder(job, budget.folderId)
    const rules = { ...(await rulesOf(job)), signal }
    const look = await lookAt(jobDir, rules)
    const limit = { bytes: budget.limitBytes, inodes: budget.limitInodes }
    const isLeftAbove = !budget.isCapped && isAbove(look, limit) // the kernel lets none pass it
    const isShort = look.usedInodes > limit.inodes
    const cause = error instanceof TrainerError ? error.cause : undefined
    let violation = cause instanceof TrainerError && cause.usage ? cause : undefined
    const { usedBytes, prunableBytes } = look
    const usage = { usedBytes, limitBytes: limit.bytes }
    const removesExcess = usedBytes - prunableBytes > limit.bytes
    if (isLeftAbove && !violation) {
      const how = error === undefined ? "and accept's command ended" : 'ended'
      violation = isShort
        ? inodesGone(budget, look, how)
        : limitReached(budget, look, how, await describeViolation(jobDir, usage, { ...rules, removesExcess }))
    }
    if (violation) {
      const { code, usage, message } = violation
      const isFailure = error !== undefined && code === 'quota-exceeded' && usage
      emit({
        ...(isFailure ? { event: 'quota.exceeded', ...usage } : { event: 'warning' }),
        job: name,
        message,
      })
    }
    if (!isLeftAbove) return
    const hasInodes = async () =>
      !isShort || pruneForRoom(jobDir, { bytes: 0, inodes: budget.reserveInodes }, rules)
    const isEnough = !removesExcess && (await hasInodes())
    if (!isEnough) await removeUnnamed(jobDir, usage, rules)
    await pruneTo(jobDir, limit.bytes, rules)
    if (!(await hasInodes())) warnOfRest(job, 'the disk has too few inodes left')
  } catch (reason) {
    const why = signal.aborted
      ? `counting and pruning took longer than ${MOST_MS / 1000} s`
      : messageOf(reason)
    warnOfRest(job, why)
  }
}

/** The rules by which a job is pruned that has ended: all that is published by now stays. */
async function rulesOf({ quota, jobDir, onPrune, onFault }: Job): Promise<EnforceOptions> {
  const keep = await publishedFiles(jobDir, quota.models)
  return { ...quota.globs, superseded: supersededFiles(jobDir), keep, onPrune, onFault }
}
