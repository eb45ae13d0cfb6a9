import { join } from 'node:path'
import { type EventBody, stampEvent, type TrainerEvent } from '../events.ts'
import { Appender } from '../system/bounded-log.ts'

const MAX_JOURNAL_BYTES = 8 * 2 ** 20
/** More does not wait for the end of a turn: as one text it could be longer than a text can be. */
const MOST_PENDING_CHARACTERS = 2 ** 20

/** Stamps every event of one run, keeps it in events.jsonl, and hands it to those who listen. */
export class Journal {
  readonly run: string
  readonly #listeners: ((event: TrainerEvent) => void)[] = []
  readonly #file: Appender | undefined
  #pending: string[] = []
  #pendingCharacters = 0
  #isLossTold = false

  /** @param stateDir where events.jsonl is kept; a dry run has none, and its events are only heard */
  constructor(stateDir?: string) {
    const random = Math.floor(Math.random() * 2 ** 24) // no secret: to load node:crypto takes 10 ms of a boot
    this.run = `${new Date().toISOString().replace(/\D/g, '').slice(0, 14)}-${random.toString(16).padStart(6, '0')}`
    this.#file =
      stateDir === undefined ? undefined : new Appender(join(stateDir, 'events.jsonl'), MAX_JOURNAL_BYTES)
  }

  /** Call `listener` with every event from here on, after those who listen already. */
  listen(listener: (event: TrainerEvent) => void): void {
    this.#listeners.push(listener)
  }

  emit(body: EventBody): void {
    this.#tellOfLoss()
    const event = stampEvent(this.run, body)
    if (this.#file) {
      // Pruning emits an event a file: one write for all of a turn of the event loop.
      const line = `${JSON.stringify(event)}\n`
      if (this.#pending.push(line) === 1) setImmediate(() => this.flush())
      this.#pendingCharacters += line.length
      if (this.#pendingCharacters > MOST_PENDING_CHARACTERS) this.flush()
    }
    for (const listener of this.#listeners) listener(event)
  }

  /** Write what waits to be written. */
  flush(): void {
    if (this.#pending.length) this.#file?.append(this.#pending.join(''))
    this.#pending = []
    this.#pendingCharacters = 0
  }

  /** Say before the next event that one was lost: the last event of a run stays the last. */
  #tellOfLoss(): void {
    if (!this.#file?.hasLost || this.#isLossTold) return
    this.#isLossTold = true
    const message = `events are missing in ${this.#file.path}, which cannot be written (a full disk?): status and report will not know of them`
    this.emit({ event: 'warning', message })
  }

  close(): void {
    this.flush()
    this.#file?.close()
  }
}
