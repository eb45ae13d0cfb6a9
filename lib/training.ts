import type { JobName } from './quotas.ts'
import type { Run } from './run.ts'
import { openJob } from './training/job.ts'

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
  const { runPhases } = await import('./training/phases.ts')
  await runPhases(job)
}
