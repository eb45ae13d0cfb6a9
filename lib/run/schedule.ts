import { setTimeout as delay } from 'node:timers/promises'
import { TrainerError } from '../errors.ts'

const MINUTE_MS = 60_000
const FIRST_BACKOFF_MS = MINUTE_MS
const unitsMs: Record<string, number> = { s: 1000, m: MINUTE_MS, h: 60 * MINUTE_MS, d: 24 * 60 * MINUTE_MS }

/**
 * A duration such as `90s`, `30m`, `24h` or `7d`, in milliseconds.
 *
 * @throws {TrainerError} `usage`, naming the option
 */
export function parseDuration(option: string, value: string): number {
  const [, amount, unit] = /^(\d{1,6})([smhd])$/.exec(value) ?? []
  const durationMs = Number(amount) * unitsMs[unit ?? 's']!
  if (durationMs > 0) return durationMs
  throw new TrainerError('usage', `${option} is "${value}", expected a duration such as 90s, 30m, 24h or 7d`)
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
