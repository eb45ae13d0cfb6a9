import { join } from 'node:path'
import type { EventBody } from './events.ts'
import type { JobName, Quota } from './quotas.ts'
import type { Run } from './run.ts'
import type { Pruned } from './storage.ts'

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
  // Half of the program's files: the boot of an appliance that has its models must not wait for them.
  const { runPhases } = await import('./phases.ts')
  await runPhases(job)
}

/** What the steps of one job of a run share. */
export function openJob(name: JobName, run: Run): Job {
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
