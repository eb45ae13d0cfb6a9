import { StringDecoder } from 'node:string_decoder'
import { escapeText } from '../text.ts'

/** Longer lines are cut into pieces of this many characters, so that output without a newline stays bounded. */
const MAX_LINE_CHARACTERS = 2048
/** The cursor goes no further up than this. */
const MAX_ROWS = 32
/** A longer sequence is none. */
const MAX_SEQUENCE_CHARACTERS = 4096

/** Characters that move the cursor, or begin a sequence that does: after an escape no sequence goes on with others. */
const control = /[\x1b\x9b](?=[ -~]|$)|[\r\n\b]/g
/** A whole sequence for a terminal: CSI (colours, cursor, erasing), OSC (titles, hyperlinks), and strings for devices. */
const sequence =
  /(?:\x1b\[|\x9b)([0-?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[PX^_][^\x1b\n]*\x1b\\/y
/** The same, as far as it has come. */
const unfinished =
  /(?:\x1b\[|\x9b)[0-?]*[ -/]*$|\x1b\][^\x07\x1b\n]*\x1b?$|\x1b[PX^_][^\x1b\n]*\x1b?$|\x1b[ -/]*$/y
/** Whatever else begins with an escape: character sets, saving and restoring the cursor. */
const otherEscape = /\x1b[ -/]*[0-~]/y

/**
 * Splits a training's output into escaped lines, in bounded memory, as they stand on a terminal in the end: what is drawn
 * over by a carriage return, or by moving the cursor up, as progress bars are, is one line, with its last state. Colours,
 * cursor movement, erasing and hyperlinks are dropped; any other control character is made visible.
 */
export class OutputLines {
  readonly #decoder = new StringDecoder('utf8')
  readonly #onLines: (lines: string[]) => void
  readonly #onRedraw: (line: string) => void
  /** The rows that may still be drawn over: the one that is being written, and those above and below that the cursor was in. */
  #rows = ['']
  #row = 0
  /** Does the next text take the place of the row? */
  #isAtStart = true
  #isDrawnOver = false
  #rest = ''
  #finished: string[] = []

  /** @param onRedraw gets the present state of a row that is being drawn over and over */
  constructor(onLines: (lines: string[]) => void, onRedraw: (line: string) => void = () => {}) {
    this.#onLines = onLines
    this.#onRedraw = onRedraw
  }

  write(chunk: Buffer): void {
    this.#take(this.#decoder.write(chunk))
    this.#pass()
    const row = this.#rows[this.#row]!
    if (this.#isDrawnOver && row.trim() !== '') this.#onRedraw(escapeText(row))
  }

  end(): void {
    this.#take(this.#decoder.end())
    this.#finishRows()
    this.#pass()
  }

  #pass(): void {
    const lines = this.#finished
    if (!lines.length) return
    this.#finished = []
    this.#onLines(lines)
  }

  #take(more: string): void {
    const text = this.#rest + more
    this.#rest = ''
    let at = 0
    control.lastIndex = 0
    while (control.test(text)) {
      const index = control.lastIndex - 1
      if (index > at) this.#put(text.slice(at, index))
      at = index + 1
      const found = text[index]
      if (found === '\n') this.#newline()
      else if (found === '\r') this.#return()
      else if (found !== '\b') {
        const end = this.#escape(text, index)
        if (end === undefined) return
        at = end
      }
      control.lastIndex = at
    }
    if (at < text.length) this.#put(text.slice(at))
  }

  /** @returns where the text goes on after a sequence; undefined if the rest of it has not come yet */
  #escape(text: string, start: number): number | undefined {
    sequence.lastIndex = start
    const found = sequence.exec(text)
    if (found) {
      const [, parameters, final] = found
      if (final) this.#move(final, Number.parseInt(parameters!, 10) || 1)
      return sequence.lastIndex
    }
    unfinished.lastIndex = start
    if (text.length - start < MAX_SEQUENCE_CHARACTERS && unfinished.test(text)) {
      this.#rest = text.slice(start)
      return undefined
    }
    otherEscape.lastIndex = start
    if (otherEscape.test(text)) return otherEscape.lastIndex
    this.#put(text.charAt(start))
    return start + 1
  }

  #put(text: string): void {
    const row = this.#isAtStart ? text : this.#rows[this.#row] + text
    this.#isAtStart = false
    let start = 0
    for (; row.length - start > MAX_LINE_CHARACTERS; start += MAX_LINE_CHARACTERS)
      this.#finish(row.slice(start, start + MAX_LINE_CHARACTERS))
    this.#rows[this.#row] = start ? row.slice(start) : row
  }

  #return(): void {
    this.#isAtStart = true
    this.#isDrawnOver = true
  }

  #newline(): void {
    this.#isAtStart = true
    if (this.#row < this.#rows.length - 1) this.#row++
    else this.#finishRows()
  }

  #move(final: string, amount: number): void {
    if (final === 'A' || final === 'F') {
      this.#return()
      // A row above those that are known was finished before: it is drawn once more.
      const missing = Math.min(amount - this.#row, MAX_ROWS - this.#rows.length)
      if (missing > 0) this.#rows.unshift(...new Array<string>(missing).fill(''))
      this.#row = Math.max(0, this.#row - amount + Math.max(0, missing))
    } else if (final === 'G') this.#return()
    else if (final === 'H' || final === 'f') this.#finishRows()
  }

  #finishRows(): void {
    for (const row of this.#rows) this.#finish(row)
    this.#rows = ['']
    this.#row = 0
    this.#isAtStart = true
    this.#isDrawnOver = false
  }

  #finish(row: string): void {
    if (row.trim() !== '') this.#finished.push(escapeText(row))
  }
}
