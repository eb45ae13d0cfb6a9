import type { Guarantee, TrainerEvent } from '../events.ts'
import type { JobName } from '../quotas.ts'
import { priorityPrefix } from '../settings/script.ts'
import { escapeText, wrap } from '../text.ts'
import { describeEvent } from './journal.ts'

/** An event as one timestamped line for a person. */
export function formatLine(event: TrainerEvent, explained?: ReadonlySet<Guarantee>): string {
  const job = 'job' in event && event.job ? `${event.job}: ` : ''
  const level = event.level === 'info' ? '' : `${event.level.toUpperCase()} `
  return escapeText(`${event.time} ${level}${job}${describeEvent(event, explained)}`)
}

/** What the events of a run have told: why jobs failed, and what its guarantees are. */
export type Told = { reasons: Map<string, JobName>; guarantees: Set<Guarantee> }

/**
 * An event as it is shown to a person after those: the reason of a failure is told by the first event that has it, and
 * the others say only whose it is. An interruption is no failure of a job.
 */
export function withoutRepetition(event: TrainerEvent, { reasons }: Told): TrainerEvent {
  if (event.event === 'job.fail' && reasons.has(event.message)) return { ...event, message: 'see above' }
  if (event.event !== 'run.done' || event.exitCode >= 128) return event
  const [reason, job] = [...reasons].find(([message]) => event.message.includes(message)) ?? []
  return reason ? { ...event, message: event.message.replace(reason, () => `${job} failed`) } : event
}

/** Print an event as one JSON object. */
export function printJson(event: TrainerEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

/** Print an event as a line for a person, on a terminal broken between words, unless it is of no use to one. */
export function printLine(event: TrainerEvent, explained?: ReadonlySet<Guarantee>): void {
  if (event.level === 'debug') return
  const line = formatLine(event, explained)
  const { columns } = process.stdout
  process.stdout.write(`${priorityPrefix(1, event.level)}${columns ? wrap(line, columns) : line}\n`)
}
