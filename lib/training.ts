import type { JobName } from './quotas.ts'
import type { Job, Run } from './run.ts'
import type { Phases } from './training/phases.ts'

/**
 * Train one job, unless the day-1 check found valid models and the run does not retrain.
 *
 * @param steps calls the phases of its training in their order
 * @throws {TrainerError} of the phase that failed; by then it is an event and nothing published has changed
 * @example await trainJob('core', run, async (job, { preflight }) => { await preflight(job) })
 */
export async function trainJob(
  name: JobName,
  run: Run,
  steps: (job: Job, phases: Phases) => Promise<void>,
): Promise<void> {
  const job = run.jobs.find(it => it.name === name)!
  if (job.check && !job.check.missing && !run.command.retrain) {
    job.state = 'skipped'
    job.emit({ event: 'job.skip', job: name, reason: job.check.reason })
    return
  }
  // Half of the program's files: the boot of an appliance that has its models must not wait for them.
  const { attempt } = await import('./training/phases.ts')
  await attempt(job, phases => steps(job, phases))
}
