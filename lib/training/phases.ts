import { messageOf } from '../errors.ts'
import { publishedFiles } from '../models.ts'
import type { Job } from '../run.ts'
import { measure } from '../storage/measure.ts'
import { checkUsage, pruneOldest, pruneTo } from '../storage.ts'
import { announce, codeOf } from './job.ts'
import { postflight } from './postflight.ts'
import { type Budget, preflight } from './preflight.ts'
import { train } from './train.ts'
import { waitForQuiet } from './wait-for-quiet.ts'

/** The phases of a job's training, in their order. */
export type Phases = { preflight: typeof preflight; train: typeof train; postflight: typeof postflight }

/**
 * Go through the phases of one job when the machine is quiet; tell how it ends, and clean up after a failure.
 *
 * @throws {TrainerError} of the phase that failed; by then it is an event and nothing published has changed
 */
export async function attempt(job: Job, steps: (phases: Phases) => Promise<void>): Promise<void> {
  const { name, jobDir, workDir, run, emit } = job
  const startedMs = performance.now()
  let budget: Budget | undefined
  const firstly: typeof preflight = async it => {
    budget = await preflight(it)
    return budget
  }
  try {
    run.signal.throwIfAborted()
    if (run.jobs.some(({ state }) => state === 'trained')) await waitForQuiet(run, name)
    job.state = 'training'
    await steps({ preflight: firstly, train, postflight })
    job.state = 'trained'
  } catch (error) {
    job.state = 'failed'
    const code = codeOf(error)
    // Announce before deleting: afterwards less is used than the message says.
    announce(job, error)
    if (code === 'quota-exceeded' || (code === 'no-space' && budget?.isDiskLimit)) {
      await emptyWork(job, budget?.rules.keep).catch(reason => {
        const message = `unpublished files are left in ${workDir}: ${messageOf(reason)}`
        emit({ event: 'warning', job: name, message })
      })
    }
    throw error
  }
  if (run.command.dryRun) return
  const seconds = (performance.now() - startedMs) / 1000
  emit({ event: 'job.done', job: name, seconds, usedBytes: await checkUsage(jobDir) })
}

/**
 * Delete all unpublished files but the checkpoints that fit, after a violation of the quota or of what a smaller disk
 * leaves of it. A half-written model is nothing to resume from, and would leave the next training no room.
 */
async function emptyWork({ quota, jobDir, run, onPrune }: Job, published?: string[]): Promise<void> {
  if (run.command.dryRun) return
  const keep = published ?? (await publishedFiles(jobDir, quota.models))
  const { prune, quotaBytes } = quota
  const { named } = await measure(jobDir, { prune, keep })
  const checkpoints = named.filter(({ rule }) => rule !== '*.tmp').map(({ path }) => path)
  const remains = await measure(jobDir, { prune: ['work/**'], keep: [...keep, ...checkpoints] })
  await pruneOldest(jobDir, remains.prunable, { ...remains, targetBytes: 0, onPrune })
  await pruneTo(jobDir, quotaBytes, { prune, keep, onPrune }).catch(() => {}) // announced above
}
