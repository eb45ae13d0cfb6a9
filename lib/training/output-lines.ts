import { StringDecoder } from 'node:string_decoder'
import { escapeText } from '../text.ts'

/** Longer lines are cut into pieces of this many characters, so that output without a newline stays bounded. */
const MAX_LINE_CHARACTERS = 2048

/**
 * Splits a training's output into escaped lines, in bounded memory. A carriage return ends a line too, because progress
 * bars redraw with it. Colour codes are dropped; any other control character is made visible.
 */
export class OutputLines {
  readonly #decoder = new StringDecoder('utf8')
  readonly #onLines: (lines: string[]) => void
  #rest = ''

  constructor(onLines: (lines: string[]) => void) {
    this.#onLines = onLines
  }

  write(chunk: Buffer): void {
    this.#take(this.#decoder.write(chunk))
  }

  end(): void {
    this.#take(`${this.#decoder.end()}\n`)
  }

  #take(text: string): void {
    const parts = (this.#rest + text).split(/[\r\n]+/)
    this.#rest = parts.pop()!
    while (this.#rest.length > MAX_LINE_CHARACTERS) {
      parts.push(this.#rest.slice(0, MAX_LINE_CHARACTERS))
      this.#rest = this.#rest.slice(MAX_LINE_CHARACTERS)
    }
    const lines = parts.flatMap(part => cut(part)).filter(line => line !== '')
    if (lines.length) this.#onLines(lines)
  }
}

function cut(line: string): string[] {
  if (line.length <= MAX_LINE_CHARACTERS) return [clean(line)]
  const pieces: string[] = []
  for (let start = 0; start < line.length; start += MAX_LINE_CHARACTERS) {
    pieces.push(clean(line.slice(start, start + MAX_LINE_CHARACTERS)))
  }
  return pieces
}

function clean(line: string): string {
  return escapeText(line.replace(/\x1b\[[\d;]*m/g, ''))
}
