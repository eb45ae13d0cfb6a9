import { join } from 'node:path'
import type { Job, PrunedPath } from '../run.ts'
import { stateDirOf } from '../settings/layout.ts'
import { Appender } from '../system/bounded-log.ts'
import { MIB } from '../text.ts'
import type { Figures } from './limit.ts'
import { isComplaint, PrunedNames } from './pruned-paths.ts'
import { tellsOfReadOnly } from './refused-write.ts'
import { isProgressLine, ToldProgress } from './told-progress.ts'

const MAX_LOG_BYTES = 4 * MIB
const OUTPUT_EVERY_MS = 10_000
const TOLD_EVERY_MS = 10_000
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

/** The last words of a launcher about a program that has failed under it: accelerate, torchrun. */
const launcherError = /^(?:subprocess\.CalledProcessError: |torch\.distributed\.\S*ChildFailedError:)/
/** It says no more than this after that. */
const LAUNCHER_LINES = 40
/** Each process of a launched training may say first which it is. */
const rank = /^\[rank\d+\]: ?/

/** So many lines of a flood of output are searched for what they tell of progress. */
const READ_AT_A_TIME = 100
/** In those that complain last, what was pruned is looked for. */
const COMPLAINTS_AT_A_TIME = 4

/** A line, and how many there were up to it. */
type Placed = { line: string; at: number }

/** A line that complains of something missing, and what that is, which this run has pruned. */
export type Complaint = { line: string; pruned: PrunedPath }

/**
 * Passes on a training's output, what that tells of its progress, and its usage: all of it to its bounded log and the live
 * list, samples to the journal.
 */
export class Progress {
  readonly logPath: string
  lastLine = ''
  #lastError: string | undefined
  /** The last error of a program's own, and that of a launcher which tells of it. */
  #ownError: Placed | undefined
  #launcherAt = Number.NEGATIVE_INFINITY
  /** The last of them. */
  complaint: Complaint | undefined
  #prunedNames = new PrunedNames([])
  #readOnly: Placed | undefined
  #lines = 0
  readonly #told = new ToldProgress()
  #journaledTold: { share: number | null; atMs: number } = { share: null, atMs: Number.NEGATIVE_INFINITY }
  #shownLine = ''
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
    this.#lines += Math.max(0, lines.length - READ_AT_A_TIME)
    const read = lines.slice(-READ_AT_A_TIME)
    for (const line of read) {
      this.#lines++
      this.#told.take(line, performance.now())
      this.#noteError(line)
    }
    this.#noteComplaint(read)
    this.lastLine = lines.findLast(line => !isProgressLine(line)) ?? this.lastLine
    const refused = tellsOfReadOnly(text) ? lines.findLast(tellsOfReadOnly) : undefined
    if (refused !== undefined) this.#readOnly = { line: refused, at: this.#lines }
    const telling = lines.findLast(line => !belongsToError.test(line.replace(rank, '')))
    if (telling !== undefined) this.#lastError = errorIn(telling)
    this.#show(this.lastLine)
  }

  /** Take the present state of a line that is drawn over and over: it is no line of the log yet. */
  takeRedraw(line: string): void {
    this.#told.take(line, performance.now())
    this.#show(line)
  }

  /**
   * The error that the output ends with, if it does: the last line may be one of its trace. Where a launcher tells that a
   * program failed, it is that program's.
   */
  get lastError(): string | undefined {
    const own = this.#ownError
    const isLaunchers = this.#lines - this.#launcherAt < LAUNCHER_LINES
    return isLaunchers && own && this.#launcherAt - own.at < TRACE_LINES ? own.line : this.#lastError
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
    run.output.progress(name, { usedBytes, limitBytes, told: this.#told.at(performance.now()) })
    this.#journalTold()
    const elapsedMs = performance.now() - this.#usageAtMs
    const hasMoved = Math.abs(usedBytes - this.#journaledBytes) > limitBytes / 50
    if (elapsedMs < (hasMoved ? USAGE_AT_MOST_EVERY_MS : USAGE_EVERY_MS)) return
    this.#usageAtMs = performance.now()
    this.#journaledBytes = usedBytes
    emit({ event: 'storage.usage', job: name, phase: 'training', usedBytes, limitBytes, freeBytes })
  }

  close(): void {
    this.#shownLine = this.lastLine
    this.#journalLine()
    this.#log.close()
  }

  #noteError(line: string): void {
    const error = errorIn(line)
    if (error === undefined) return
    if (launcherError.test(error)) this.#launcherAt = this.#lines
    else this.#ownError = { line: error, at: this.#lines }
  }

  #noteComplaint(lines: string[]): void {
    const { pruned } = this.#job
    if (!pruned.length) return
    const complaints = lines.filter(isComplaint).slice(-COMPLAINTS_AT_A_TIME)
    if (complaints.length && this.#prunedNames.newest !== pruned.at(-1))
      this.#prunedNames = new PrunedNames(pruned)
    for (const line of complaints.reverse()) {
      const found = this.#prunedNames.find(line)
      if (!found) continue
      this.complaint = { line, pruned: found }
      return
    }
  }

  #show(line: string): void {
    this.#shownLine = line
    const nowMs = performance.now()
    this.#job.run.output.progress(this.#job.name, { line, told: this.#told.at(nowMs) })
    if (nowMs - this.#outputAtMs > OUTPUT_EVERY_MS) this.#journalLine()
    this.#journalTold()
  }

  #journalLine(): void {
    const line = this.#shownLine
    if (line === this.#journaledLine) return
    this.#outputAtMs = performance.now()
    this.#journaledLine = line
    this.#job.emit({ event: 'train.output', job: this.#job.name, line })
  }

  /** At once when it begins or ceases to tell, else now and then. */
  #journalTold(): void {
    const nowMs = performance.now()
    const { share = null, secondsLeft } = this.#told.at(nowMs) ?? {}
    const last = this.#journaledTold
    const isNew = (share === null) !== (last.share === null)
    if (share === last.share || (!isNew && nowMs - last.atMs < TOLD_EVERY_MS)) return
    this.#journaledTold = { share, atMs: nowMs }
    const left = secondsLeft === undefined ? {} : { secondsLeft: Math.round(secondsLeft) }
    this.#job.emit({ event: 'train.progress', job: this.#job.name, share, ...left })
  }
}

/** The error that a line names; Node.js puts brackets around one that has no frames: `[Error: …] {`. */
function errorIn(line: string): string | undefined {
  const plain = line.replace(rank, '')
  const bare = /^\[(.*)\](?: \{)?$/.exec(plain)?.[1] ?? plain
  return namesError.test(bare) ? bare : undefined
}
