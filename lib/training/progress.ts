import { join } from 'node:path'
import { stateDirOf } from '../layout.ts'
import type { Job } from '../run.ts'
import { Appender } from '../system/bounded-log.ts'
import { MIB } from '../text.ts'
import type { Figures } from './limit.ts'
import { tellsOfReadOnly } from './refused-write.ts'

const MAX_LOG_BYTES = 4 * MIB
const OUTPUT_EVERY_MS = 10_000
const USAGE_EVERY_MS = 30_000
const USAGE_AT_MOST_EVERY_MS = 1_000
/** The traces of errors that came from one another are seldom longer. */
const TRACE_LINES = 200

/** A training's words for a full filesystem or a file at its limit, in C, Python and Node.js. */
const outOfSpace =
  /\b(ENOSPC|EDQUOT|EFBIG)\b|No space left on device|Disk quota exceeded|File too large|File size limit exceeded/

/** How Python and Node.js tell of an uncaught error: `ValueError: …`, `TypeError [CODE]: …`, `Error`. */
const namesError = /^[\w.$]*(Error|Exception)( \[\w+\])?(:|$)/
/** The lines that Node.js prints below it: frames, the end of the error's properties, its own version. */
const belongsToError = /^(\s|\}$|Node\.js v\d)/

/** Passes on a training's output and usage: all of it to its bounded log and the live list, samples to the journal. */
export class Progress {
  readonly logPath: string
  lastLine = ''
  /** The error that the output ends with, if it does: the last line may be one of its trace. */
  lastError: string | undefined
  #readOnly: { line: string; at: number } | undefined
  #lines = 0
  readonly #job: Job
  readonly #limitBytes: number
  readonly #log: Appender
  #journaledLine = ''
  #outputAtMs = 0
  #usageAtMs = Number.NEGATIVE_INFINITY
  #journaledBytes = 0

  constructor(job: Job, limitBytes: number) {
    this.#job = job
    this.#limitBytes = limitBytes
    this.logPath = join(stateDirOf(job.run.modelsDir), `${job.name}.log`)
    this.#log = new Appender(this.logPath, MAX_LOG_BYTES)
    this.#outputAtMs = performance.now()
  }

  takeLines(lines: string[]): void {
    const text = lines.join('\n')
    this.#log.append(`${text}\n`)
    this.lastLine = lines.at(-1)!
    this.#lines += lines.length
    const refused = lines.findLast(tellsOfReadOnly)
    if (refused !== undefined) this.#readOnly = { line: refused, at: this.#lines }
    const telling = lines.findLast(line => !belongsToError.test(line))
    if (telling !== undefined) this.lastError = errorIn(telling)
    this.#job.run.output.progress(this.#job.name, { line: this.lastLine })
    if (performance.now() - this.#outputAtMs > OUTPUT_EVERY_MS) this.#journalLine()
  }

  /** Does the error that the output ends with, or its last line, tell of a full filesystem or a file at its limit? */
  get saysOutOfSpace(): boolean {
    return outOfSpace.test(this.lastError ?? this.lastLine)
  }

  /** The words that may tell why it ended: its error, or those of another one just before, from which that came. */
  get finalWords(): string[] {
    const { line, at } = this.#readOnly ?? { line: '', at: Number.NEGATIVE_INFINITY }
    return [this.lastError ?? this.lastLine, ...(this.#lines - at < TRACE_LINES ? [line] : [])]
  }

  takeLook({ usedBytes, freeBytes }: Figures): void {
    const { name, run, emit } = this.#job
    const limitBytes = this.#limitBytes
    run.output.progress(name, { usedBytes, limitBytes })
    const elapsedMs = performance.now() - this.#usageAtMs
    const hasMoved = Math.abs(usedBytes - this.#journaledBytes) > limitBytes / 50
    if (elapsedMs < (hasMoved ? USAGE_AT_MOST_EVERY_MS : USAGE_EVERY_MS)) return
    this.#usageAtMs = performance.now()
    this.#journaledBytes = usedBytes
    emit({ event: 'storage.usage', job: name, phase: 'training', usedBytes, limitBytes, freeBytes })
  }

  close(): void {
    this.#journalLine()
    this.#log.close()
  }

  #journalLine(): void {
    if (this.lastLine === this.#journaledLine) return
    this.#outputAtMs = performance.now()
    this.#journaledLine = this.lastLine
    this.#job.emit({ event: 'train.output', job: this.#job.name, line: this.lastLine })
  }
}

/** The error that a line names; Node.js puts brackets around one that has no frames: `[Error: …] {`. */
function errorIn(line: string): string | undefined {
  const bare = /^\[(.*)\](?: \{)?$/.exec(line)?.[1] ?? line
  return namesError.test(bare) ? bare : undefined
}
