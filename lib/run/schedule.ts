import { setTimeout as delay } from 'node:timers/promises'
import type { JobName } from '../quotas.ts'
import { MINUTE_MS } from '../settings/options.ts'

const FIRST_BACKOFF_MS = MINUTE_MS

/** What a run that repeats has to do next; `failures` are the passes in a row that failed. */
export type Due = { jobs: JobName[]; retrain: boolean; failures: number }

/**
 * What is due after a pass: all jobs anew after a success, else those that it did not train.
 *
 * @param asked the jobs that the run is for
 */
export function nextDue(due: Due, asked: JobName[], pass: { exitCode: number; trained: JobName[] }): Due {
  return pass.exitCode === 0
    ? { jobs: asked, retrain: true, failures: 0 }
    : { ...due, jobs: due.jobs.filter(job => !pass.trained.includes(job)), failures: due.failures + 1 }
}

/** Until the next pass: the whole interval after a success, else 1, 2, 4, … minutes, at most the interval. */
export function untilNextPassMs(everyMs: number, failures: number): number {
  return failures === 0 ? everyMs : Math.min(everyMs, FIRST_BACKOFF_MS * 2 ** (failures - 1))
}

/** Wait on the monotonic clock, however long; true unless interrupted. */
export async function waitFor(durationMs: number, signal: AbortSignal): Promise<boolean> {
  const end = performance.now() + durationMs
  for (let leftMs = durationMs; leftMs > 0 && !signal.aborted; leftMs = end - performance.now()) {
    // A timer holds at most 2^31 - 1 ms.
    await delay(Math.min(leftMs, 2 ** 31 - 1), undefined, { signal }).catch(() => {})
  }
  return !signal.aborted
}
