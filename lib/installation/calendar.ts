import { TrainerError } from '../errors.ts'
import { parseDuration } from '../run/schedule.ts'

const HOUR_MS = 3_600_000
const calendars: Record<number, string> = { 24: 'daily', 168: 'weekly', 336: '*-*-01,15', 720: 'monthly' }

/** When a timer elapses, and by how much it is put off at random, in the words of systemd.time(7). */
export type Repetition = { calendar: string; spread: string }

/**
 * An interval as a calendar has it: a timer that makes up for what was missed needs one, and few repeat evenly.
 *
 * @throws {TrainerError} `usage` if it is none of those
 * @example repetition('7d') // { calendar: 'weekly', spread: '360min' }
 */
export function repetition(every: string): Repetition {
  const hours = parseDuration('--every', every) / HOUR_MS
  const calendar =
    calendars[hours] ?? (24 % hours === 0 && hours >= 1 ? `*-*-* 00/${hours}:00:00` : undefined)
  if (calendar) return { calendar, spread: `${Math.min(hours * 6, 360)}min` }
  const expected = '1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d, 7d, 14d or 30d'
  throw new TrainerError('usage', `--every is "${every}", expected ${expected}: what a calendar can repeat`)
}
