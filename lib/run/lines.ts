import { fstatSync } from 'node:fs'
import type { Level, TrainerEvent } from '../events.ts'
import { describeEvent } from '../journal.ts'
import { escapeText } from '../text.ts'

/** Syslog's numbers, see sd-daemon(3). */
const priorities: Record<Level, number> = { critical: 2, error: 3, warning: 4, info: 6, debug: 7 }

/** An event as one timestamped line for a person. */
export function formatLine(event: TrainerEvent): string {
  const job = 'job' in event && event.job ? `${event.job}: ` : ''
  const level = event.level === 'info' ? '' : `${event.level.toUpperCase()} `
  return escapeText(`${event.time} ${level}${job}${describeEvent(event)}`)
}

/** `<4>` and the like in front of a line on this descriptor, if journald reads it; else nothing. */
export function priorityPrefix(fd: number, level: Level): string {
  const { JOURNAL_STREAM } = process.env
  if (!JOURNAL_STREAM) return ''
  const { dev, ino } = fstatSync(fd)
  return JOURNAL_STREAM === `${dev}:${ino}` ? `<${priorities[level]}>` : ''
}
