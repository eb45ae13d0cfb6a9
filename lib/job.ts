import { join } from 'node:path'
import { messageOf, TrainerError } from './errors.ts'
import type { EventBody } from './events.ts'
import { waitForQuiet } from './load.ts'
import { publishedFiles } from './models.ts'
import { postflight } from './postflight.ts'
import { preflight } from './preflight.ts'
import type { JobName, Quota } from './quotas.ts'
import type { Run } from './run.ts'
import { checkUsage, enforceLimit, type Pruned } from './storage.ts'
import { train } from './train.ts'

/** One job of a run: what its three phases share. */
export type Job = {
  name: JobName
  quota: Quota
  /** Everything in here is charged to the quota. */
  dir: string
  /** The training's output folder. */
  workDir: string
  run: Run
  emit: (event: EventBody) => void
  onPrune: (pruned: Pruned) => void
}

/**
 * Train one job and publish its models: pre-flight, train, post-flight. Skipped when the day-1 check found valid
 * models, unless the run retrains.
 *
 * @throws {TrainerError} of the phase that failed; by then it is an event and nothing published has changed
 */
export async function runJob(name: JobName, run: Run): Promise<void> {
  const job = openJob(name, run)
  const published = run.published.get(name)
  if (published && !published.missing && !run.command.retrain) {
    job.emit({ event: 'job.skip', job: name, reason: published.reason })
    return
  }
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
    await emptyWork(job, error)
    announce(job, error)
    throw error
  }
  const seconds = (performance.now() - startedMs) / 1000
  job.emit({ event: 'job.done', job: name, seconds, usedBytes: await checkUsage(job.dir) })
}

function openJob(name: JobName, run: Run): Job {
  const quota = { ...run.quotas.jobs[name] }
  if (run.command.maxDiskMb !== undefined) quota.maxDiskMb = run.command.maxDiskMb
  const dir = join(run.modelsDir, name)
  const emit = (event: EventBody) => run.journal.emit(event)
  const dryRun = run.command.dryRun ? { dryRun: true } : {}
  return {
    name,
    quota,
    dir,
    workDir: join(dir, 'work'),
    run,
    emit,
    onPrune: pruned => emit({ event: 'storage.prune', job: name, ...pruned, ...dryRun }),
  }
}

/** After a violation: the quota holds again, at the cost of the unpublished work, oldest first. */
async function emptyWork({ quota, dir, run, onPrune }: Job, error: unknown): Promise<void> {
  if (!(error instanceof TrainerError && error.code === 'quota-exceeded') || run.command.dryRun) return
  const prune = [...quota.prune, 'work/*']
  const keep = await publishedFiles(dir, quota.models)
  await enforceLimit(dir, quota.maxDiskMb, { prune, keep, onPrune }).catch(() => {}) // the violation is told already
}

function announce({ name, emit }: Job, error: unknown): void {
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
