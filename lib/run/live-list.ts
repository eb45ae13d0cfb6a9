import type { Guarantee, TrainerEvent } from '../events.ts'
import type { Progress } from '../run.ts'
import { escapeText, formatBar, formatBytes, formatClock, formatMetricsTable } from '../text.ts'
import { describeEvent } from './journal.ts'

/** The part of a listr2 task that is painted. */
export type Painted = { title: string; output: string; skip: (message: string) => void }

/** At most this many lines stay below a task; the journal has all of them. */
const MAX_NOTES = 8

/**
 * The words of the live list: usage against quota as a bar with figures, elapsed time, what it waits for or the training's
 * last line; and what was pruned, published or warned of, which stays when the task is done.
 */
export class Screen {
  #task: Painted | undefined
  #title = ''
  #startedMs = 0
  #now: Progress = {}
  #notes: string[] = []
  #pruned = { files: 0, bytes: 0, last: '' }
  readonly #explained = new Set<Guarantee>()
  readonly #metrics: Record<string, Record<string, number>> = {}

  // So that the clock goes on between events.
  readonly #timer = setInterval(() => this.#paint(), 1000).unref()

  /** The list is over: the holdout metrics of what was published, as a table of `width` columns; empty if there are none. */
  close(width: number): string {
    clearInterval(this.#timer)
    const models = Object.entries(this.#metrics).filter(([, metrics]) => Object.keys(metrics).length)
    return models.length ? `\n${formatMetricsTable(Object.fromEntries(models), width)}\n\n` : ''
  }

  /** From here on, what happens belongs to this task. */
  begin(task: Painted, title: string): void {
    this.#task = task
    this.#title = title
    this.#startedMs = performance.now()
    this.#now = {}
    this.#notes = []
    this.#pruned = { files: 0, bytes: 0, last: '' }
  }

  /** The task is over: its clock stands, its last line goes. */
  end(): void {
    delete this.#now.line
    this.#paint()
    this.#task = undefined
  }

  takeProgress(progress: Progress): void {
    Object.assign(this.#now, progress)
    this.#paint()
  }

  takeEvent(event: TrainerEvent): void {
    if (event.event === 'job.skip') {
      this.#task?.skip(`${this.#title}: skipped, ${escapeText(event.reason)}`)
    } else if (event.event === 'storage.prune') {
      const { files, bytes } = this.#pruned
      this.#pruned = { files: files + 1, bytes: bytes + event.bytes, last: event.path }
    } else if (event.event === 'storage.usage') {
      this.#now = { ...this.#now, usedBytes: event.usedBytes, limitBytes: event.limitBytes }
    } else if (['run.wait', 'train.freeze', 'train.resume'].includes(event.event)) {
      this.#now.line = escapeText(describeEvent(event))
    } else if (event.event === 'model.publish') {
      this.#note(`published ${event.path}`)
      this.#metrics[event.job] = event.metrics
    } else if (event.event === 'job.start') {
      delete this.#now.line
      this.#note(describeEvent(event, this.#explained))
      this.#explained.add(event.guarantee)
    } else if (event.event === 'run.start' || event.event === 'warning') {
      this.#note(describeEvent(event))
    } else if (event.event === 'day1.check') {
      this.#note(`${event.job}: ${describeEvent(event)}`)
    }
    this.#paint()
  }

  /** A failed task's error, as the list shows it: with nothing in its message that a terminal obeys. */
  shown(error: unknown): unknown {
    if (error instanceof Error) error.message = error.message.split('\n').map(escapeText).join('\n')
    return error
  }

  #note(text: string): void {
    this.#notes.push(escapeText(text))
  }

  #paint(): void {
    if (!this.#task) return
    const { usedBytes, limitBytes, line } = this.#now
    const usage =
      usedBytes === undefined || limitBytes === undefined
        ? ''
        : `  ${formatBar(usedBytes, limitBytes)} ${formatBytes(usedBytes)} of ${formatBytes(limitBytes)}`
    const clock = usage || line ? `  ${formatClock((performance.now() - this.#startedMs) / 1000)}` : ''
    this.#task.title = `${this.#title}${usage}${clock}`
    const { files, bytes, last } = this.#pruned
    const pruned = files ? [`pruned ${files} (${formatBytes(bytes)}), last ${last}`] : []
    const notes = this.#notes.filter(note => note !== '').slice(-MAX_NOTES)
    this.#task.output = [...notes, ...pruned, ...(line ? [`> ${line}`] : [])].join('\n')
  }
}
