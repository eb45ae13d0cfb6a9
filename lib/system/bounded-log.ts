import { constants, fstatSync, openSync, readSync, renameSync, writeSync } from 'node:fs'
import { letGo } from './durable.ts'

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants

/**
 * A log file of bounded size. Grown to `maxBytes` it becomes `<path>.1` in place of the one before; the two together
 * never hold more than twice `maxBytes`. A regular file at `path` is continued; anything else there is set aside as
 * `<path>.1` (a link is never followed). A folder and a file cannot take each other's name: then it is `<path>.aside`.
 *
 * A log is an aid: where it cannot be written (a full disk), lines are dropped and the work goes on; `hasLost` tells.
 */
export class Appender {
  readonly path: string
  hasLost = false
  readonly #maxBytes: number
  #fd: number | undefined
  #bytes = 0
  #torn = false

  constructor(path: string, maxBytes: number) {
    this.path = path
    this.#maxBytes = maxBytes
    if (!this.#open()) this.#rotate()
  }

  /** Append whole lines, each ended by a newline. One that is longer than the log may be is lost. */
  append(lines: string): void {
    if (Buffer.byteLength(lines) < this.#maxBytes) {
      this.#write(lines)
      return
    }
    let piece = ''
    let pieceBytes = 0
    for (const line of lines.match(/[^\n]*\n/g) ?? []) {
      const bytes = Buffer.byteLength(line)
      const isTooLong = bytes >= this.#maxBytes
      this.hasLost ||= isTooLong
      if (isTooLong) continue
      if (pieceBytes + bytes >= this.#maxBytes) {
        this.#write(piece)
        piece = ''
        pieceBytes = 0
      }
      piece += line
      pieceBytes += bytes
    }
    if (piece) this.#write(piece)
  }

  #write(lines: string): void {
    const bytes = Buffer.from(this.#torn ? `\n${lines}` : lines)
    if (this.#bytes > 0 && this.#bytes + bytes.length > this.#maxBytes) this.#rotate()
    // A disk that was full may have room by now.
    if (this.#fd === undefined && !this.#open()) {
      this.close()
      this.hasLost = true
      return
    }
    try {
      const written = writeSync(this.#fd!, bytes)
      this.#bytes += written
      this.#torn = written < bytes.length
      this.hasLost ||= this.#torn
    } catch {
      // A full disk must not stop a training for the sake of its log.
      this.hasLost = true
    }
  }

  close(): void {
    if (this.#fd !== undefined) letGo(this.#fd)
    this.#fd = undefined
  }

  /** Open the file to append to it; false if that is impossible. */
  #open(): boolean {
    try {
      this.#fd = openSync(this.path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o640)
      const stats = fstatSync(this.#fd)
      this.#bytes = stats.size
      this.#torn = stats.size > 0 && !endsWithNewline(this.#fd, stats.size)
      return stats.isFile()
    } catch {
      return false
    }
  }

  #rotate(): void {
    this.close()
    const isAside = ['1', 'aside'].some(ending => this.#rename(`${this.path}.${ending}`))
    // A file that is neither usable nor movable stays: the work goes on without this log.
    if (isAside && !this.#open()) this.close()
  }

  #rename(to: string): boolean {
    try {
      renameSync(this.path, to)
      return true
    } catch {
      return false
    }
  }
}

function endsWithNewline(fd: number, size: number): boolean {
  const last = Buffer.alloc(1)
  readSync(fd, last, 0, 1, size - 1)
  return last[0] === 0x0a
}
