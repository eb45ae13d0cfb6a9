import type { TrainerEvent } from '../events.ts'
import type { JobName } from '../quotas.ts'
import { escapeText, formatBar, formatBytes, formatClock, formatMetricsTable, formatTold } from '../text.ts'
import { type Output, type Progress, TextLines } from './output.ts'

/** The part of a listr2 task that is painted. */
export type Painted = { title: string; output: string; skip: (message: string) => void }

/** At most this many lines stay below a task; the journal has all of them. */
const MAX_NOTES = 8

/**
 * The words of a live list of tasks: usage against quota as a bar with figures, elapsed time, what it waits for or the
 * training's last line, and how far that says it is; and what was pruned, published or warned of, which stays when the task is done. Before the list
 * begins and after its end events are lines.
 */
export class LiveList implements Output {
  readonly #lines = new TextLines()
  #clock: NodeJS.Timeout | undefined
  #task: Painted | undefined
  #title = ''
  #startedMs = 0
  #now: Progress = {}
  #notes: string[] = []
  #pruned = { files: 0, bytes: 0, last: '' }
  #metrics: Record<string, Record<string, number>> = {}

  /**
   * Show a list until it ends; then print the holdout metrics of what was published.
   *
   * @param list its tasks call {@link follow}
   * @throws what one of its tasks throws
   */
  async show(list: { run: () => Promise<unknown> }): Promise<void> {
    this.#clock = setInterval(() => this.#paint(), 1000).unref() // it goes on between events
    try {
      await list.run()
    } finally {
      this.close()
      process.stdout.write(this.#takeMetricsTable(process.stdout.columns))
    }
  }

  /**
   * Show what happens as part of a task until `step` ends; then its clock stands, and its last line goes.
   *
   * @throws what `step` throws, with nothing in its message that a terminal obeys
   */
  async follow(task: Painted, title: string, step: () => Promise<void>): Promise<void> {
    this.#task = task
    this.#title = title
    this.#startedMs = performance.now()
    this.#now = {}
    this.#notes = []
    this.#pruned = { files: 0, bytes: 0, last: '' }
    try {
      await step()
    } catch (error) {
      if (error instanceof Error) error.message = error.message.split('\n').map(escapeText).join('\n')
      throw error
    } finally {
      delete this.#now.line
      delete this.#now.told
      this.#paint()
      this.#task = undefined
    }
  }

  take(event: TrainerEvent): void {
    if (!this.#clock) {
      this.#lines.take(event)
      return
    }
    this.#takeInto(event)
    this.#lines.note(event)
    this.#paint()
  }

  progress(_: JobName, progress: Progress): void {
    Object.assign(this.#now, progress)
    this.#paint()
  }

  close(): void {
    clearInterval(this.#clock)
    this.#clock = undefined
  }

  #takeInto(event: TrainerEvent): void {
    switch (event.event) {
      case 'job.skip':
        this.#task?.skip(`${this.#title}: skipped, ${escapeText(event.reason)}`)
        return
      case 'storage.prune':
        this.#pruned = {
          files: this.#pruned.files + 1,
          bytes: this.#pruned.bytes + event.bytes,
          last: event.path,
        }
        return
      case 'storage.usage':
        this.#now = { ...this.#now, usedBytes: event.usedBytes, limitBytes: event.limitBytes }
        return
      case 'train.exit':
        delete this.#now.told
        return
      case 'run.wait':
      case 'train.freeze':
      case 'train.resume':
        this.#now.line = escapeText(this.#lines.describe(event))
        return
      case 'model.publish':
        this.#note(`published ${event.path}`)
        this.#metrics[event.job] = event.metrics
        return
      case 'job.start':
        delete this.#now.line
        this.#note(this.#lines.describe(event))
        return
      case 'warning':
        this.#note(this.#lines.describe(event))
        return
      case 'day1.check':
        this.#note(`${event.job}: ${this.#lines.describe(event)}`)
    }
  }

  #note(text: string): void {
    this.#notes.push(escapeText(text))
  }

  #paint(): void {
    if (!this.#task) return
    const { usedBytes, limitBytes, line, told } = this.#now
    const usage =
      usedBytes === undefined || limitBytes === undefined
        ? ''
        : `  ${formatBar(usedBytes, limitBytes)} ${formatBytes(usedBytes)} of ${formatBytes(limitBytes)}`
    const clock = usage || line ? `  ${formatClock((performance.now() - this.#startedMs) / 1000)}` : ''
    this.#task.title = `${this.#title}${usage}${clock}`
    const { files, bytes, last } = this.#pruned
    const pruned = files ? [`pruned ${files} (${formatBytes(bytes)}), last ${last}`] : []
    const notes = this.#notes.filter(note => note !== '').slice(-MAX_NOTES)
    const says = told ? [`says ${formatBar(told.share, 1)} ${formatTold(told)}`] : []
    this.#task.output = [...notes, ...pruned, ...says, ...(line ? [`> ${line}`] : [])].join('\n')
  }

  /** The metrics of what was published while the list was shown, `width` columns wide; empty if there are none. */
  #takeMetricsTable(width: number): string {
    const models = Object.entries(this.#metrics).filter(([, metrics]) => Object.keys(metrics).length)
    this.#metrics = {}
    return models.length ? `\n${formatMetricsTable(Object.fromEntries(models), width)}\n\n` : ''
  }
}
