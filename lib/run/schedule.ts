import { setTimeout as delay } from 'node:timers/promises'
import type { JobName } from '../quotas.ts'
import { MINUTE_MS } from '../settings/options.ts'

const FIRST_BACKOFF_MS = MINUTE_MS
/** The exit code of a run whose trainings went well. */
const NOT_ACCEPTED = 4

/** The next pass of a run that repeats; `failures` counts the passes in a row that failed. */
export type Due = { jobs: JobName[]; retrain: boolean; failures: number }

/**
 * Tell what is due after a pass: after a success all jobs anew, else those that it did not train.
 *
 * @param asked the jobs that the run is for
 */
export function nextDue(due: Due, asked: JobName[], pass: { exitCode: number; trained: JobName[] }): Due {
  // A model that was not accepted comes out the same if the same data are trained again at once.
  return pass.exitCode === 0 || pass.exitCode === NOT_ACCEPTED
    ? { jobs: asked, retrain: true, failures: 0 }
    : { ...due, jobs: due.jobs.filter(job => !pass.trained.includes(job)), failures: due.failures + 1 }
}

/** Tell how long to wait for the next pass: the interval after a success, else 1, 2, 4, … minutes up to the interval. */
export function untilNextPassMs(everyMs: number, failures: number): number {
  return failures === 0 ? everyMs : Math.min(everyMs, FIRST_BACKOFF_MS * 2 ** (failures - 1))
}

/** Wait by the monotonic clock, for any time; returns false if interrupted. */
export async function waitFor(durationMs: number, signal: AbortSignal): Promise<boolean> {
  const end = performance.now() + durationMs
  for (let leftMs = durationMs; leftMs > 0 && !signal.aborted; leftMs = end - performance.now()) {
    // A timer holds at most 2^31 - 1 ms.
    await delay(Math.min(leftMs, 2 ** 31 - 1), undefined, { signal }).catch(() => {})
  }
  return !signal.aborted
}
