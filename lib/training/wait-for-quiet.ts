import { availableParallelism, loadavg } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import type { JobName } from '../quotas.ts'
import type { Run } from '../run.ts'

const POLL_MS = 5_000

/**
 * Wait, before a job that follows another, while the 1-minute load average is above `maxLoadPerCore` × cores, but no
 * longer than the run's `--max-wait`. A run that neither repeats nor has that option does not wait, nor does a dry run.
 */
export async function waitForQuiet(run: Run, job: JobName): Promise<void> {
  const { dryRun, maxWaitMs } = run.command
  if (dryRun || maxWaitMs === undefined) return
  const limit = run.quotas.maxLoadPerCore * availableParallelism()
  const startedMs = performance.now()
  const waitedMs = () => performance.now() - startedMs
  let isWaiting = false
  while (loadavg()[0]! > limit) {
    const load = loadavg()[0]!.toFixed(2)
    if (waitedMs() >= maxWaitMs) {
      const message = `the load of ${load} is still above ${limit.toFixed(2)} after ${Math.round(maxWaitMs / 1000)} s; going on`
      run.journal.emit({ event: 'warning', job, message })
      return
    }
    if (!isWaiting) {
      const reason = `the load of ${load} is above ${limit.toFixed(2)}`
      run.journal.emit({ event: 'run.wait', job, reason, seconds: maxWaitMs / 1000 })
    }
    isWaiting = true
    await delay(Math.min(POLL_MS, maxWaitMs - waitedMs()), undefined, { signal: run.signal }).catch(() => {})
    run.signal.throwIfAborted()
    run.metrics?.refresh()
  }
}
