import type { Guarantee, TrainerEvent } from '../events.ts'
import type { JobName } from '../quotas.ts'
import { priorityPrefix } from '../settings/script.ts'
import { escapeText, wrap } from '../text.ts'
import { describeEvent } from './event-text.ts'

/** The state of a training between events: its usage at the last look, its last line, and how far it says it is. */
export type Progress = {
  usedBytes?: number
  limitBytes?: number
  line?: string
  /** A share of 1, and the seconds left by its pace so far; undefined if it does not say. */
  told?: { share: number; secondsLeft?: number } | undefined
}

/** Shows a run: to a program, to a log, or on a screen. */
export type Output = {
  /** Show an event. */
  take: (event: TrainerEvent) => void
  /** Show how far a job's training is. */
  progress: (job: JobName, progress: Progress) => void
  /** The run is over: nothing more is shown. */
  close: () => void
}

/** One JSON object a line, for a program. */
export class JsonLines implements Output {
  take(event: TrainerEvent): void {
    process.stdout.write(`${JSON.stringify(event)}\n`)
  }

  // Every figure that a program needs is in an event.
  progress(): void {}
  close(): void {}
}

/**
 * One timestamped line an event, for a person or a log. It remembers what it has said: the reason of a failure and the
 * meaning of a guarantee are explained once, and of the pauses of a job that pruned nothing only the first one is told.
 */
export class TextLines implements Output {
  /** The job that failed, by the reason that was told. */
  readonly #reasons = new Map<string, JobName>()
  readonly #guarantees = new Set<Guarantee>()
  /** The jobs of which a pause that pruned nothing has been told. */
  readonly #paused = new Set<JobName>()
  /** The beginning of a pause that may turn out to be one more of those. */
  #held: TrainerEvent | undefined

  /** Print an event, on a terminal broken between words; a person has no use for a debug event. */
  take(event: TrainerEvent): void {
    if (event.event === 'train.freeze' && this.#paused.has(event.job)) {
      this.#held = event
      return
    }
    const held = this.#held
    this.#held = undefined
    if (event.event === 'train.resume' && event.countedOnly) {
      if (held) return
      this.#paused.add(event.job)
    }
    if (held) this.#print(held)
    this.#print(event)
    this.note(event)
  }

  #print(event: TrainerEvent): void {
    if (event.level !== 'debug') {
      const line = formatLine(this.#withoutRepetition(event), this.#guarantees)
      const { columns } = process.stdout
      process.stdout.write(`${priorityPrefix(1, event.level)}${columns ? wrap(line, columns) : line}\n`)
    }
  }

  /** Remember what an event has told, whoever has shown it. */
  note(event: TrainerEvent): void {
    if (event.event === 'job.start') this.#guarantees.add(event.guarantee)
    if (event.event === 'quota.exceeded' || event.event === 'job.fail')
      this.#reasons.set(event.message, event.job)
  }

  /** Describe an event without its time; a guarantee that was explained is only named. */
  describe(event: TrainerEvent): string {
    return describeEvent(event, this.#guarantees)
  }

  // A line is made of an event; what happens between events is for a screen.
  progress(): void {}
  close(): void {}

  /**
   * Shorten an event for a person: only the first event with a given failure prints its reason; later ones refer to it.
   * An interruption is no failure of a job.
   */
  #withoutRepetition(event: TrainerEvent): TrainerEvent {
    if (event.event === 'job.fail' && this.#reasons.has(event.message))
      return { ...event, message: 'see above' }
    if (event.event !== 'run.done' || event.exitCode >= 128) return event
    const [reason, job] = [...this.#reasons].find(([message]) => event.message.includes(message)) ?? []
    return reason ? { ...event, message: event.message.replace(reason, () => `${job} failed`) } : event
  }
}

/** Format an event as one timestamped line for a person. */
export function formatLine(event: TrainerEvent, explained?: ReadonlySet<Guarantee>): string {
  const job = 'job' in event && event.job ? `${event.job}: ` : ''
  const level = event.level === 'info' ? '' : `${event.level.toUpperCase()} `
  return escapeText(`${event.time} ${level}${job}${describeEvent(event, explained)}`)
}
