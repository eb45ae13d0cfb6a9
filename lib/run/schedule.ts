import { setTimeout as delay } from 'node:timers/promises'
import { MINUTE_MS } from '../settings/options.ts'

const FIRST_BACKOFF_MS = MINUTE_MS

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
