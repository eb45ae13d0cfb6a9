/** Format bytes as an operator reads quotas, in MiB: `1.5 MiB`, `3072 MiB`; less than one as `410 KiB` or `512 B`. */
export function formatBytes(bytes: number): string {
  const size = Math.abs(bytes)
  const [unit, unitBytes] = size >= MIB ? ['MiB', MIB] : size >= 1024 ? ['KiB', 1024] : ['B', 1]
  const amount = bytes / unitBytes
  return `${size < 100 * unitBytes && !Number.isInteger(amount) ? amount.toFixed(1) : Math.round(amount)} ${unit}`
}

/** Format a number with its noun: `1 run`, `3 runs`. */
export function count(amount: number, noun: string): string {
  return `${amount} ${noun}${amount === 1 ? '' : 's'}`
}

/** Format seconds as `12 s`, `3 min 05 s` or `2 h 14 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds)
  if (whole < 60) return `${seconds < 10 ? seconds.toFixed(1) : whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`
}

/** Format how far a training says it is: `42 %, about 3 min 05 s left`. */
export function formatTold({
  share,
  secondsLeft,
}: {
  share: number
  secondsLeft?: number | null | undefined
}): string {
  const left = typeof secondsLeft === 'number' ? `, about ${formatSeconds(secondsLeft)} left` : ''
  return `${Math.floor(share * 100)} %${left}`
}

/** Format seconds as a clock: `00:07`, `1:02:03`. */
export function formatClock(seconds: number): string {
  const whole = Math.floor(seconds)
  const minutes = String(Math.floor(whole / 60) % 60).padStart(2, '0')
  const hours = whole < 3600 ? '' : `${Math.floor(whole / 3600)}:`
  return `${hours}${minutes}:${String(whole % 60).padStart(2, '0')}`
}

/**
 * Format a model's first metrics: `accuracy 0.987, recall 0.97`. A trainer lists those that matter first, under names of its
 * own, which come escaped.
 */
export function formatMetrics(metrics: Record<string, number>, most = 4): string {
  const shown = Object.entries(metrics).slice(0, most)
  return shown.map(([name, value]) => `${escapeText(name)} ${formatMetric(value)}`).join(', ')
}

function formatMetric(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(3)
}

/** Format a figure that is compared with another: as it is, but for what is beyond a computer's exactness. */
export function formatFigure(value: number): string {
  return String(Number(value.toPrecision(12)))
}

/** Align rows as a table under a line of heads. The first column is text, the others are figures. */
function formatTable(heads: string[], rows: string[][]): string {
  const widths = heads.map((head, column) => Math.max(head.length, ...rows.map(row => row[column]!.length)))
  const line = (cells: string[]) =>
    cells
      .map((cell, column) => (column ? cell.padStart(widths[column]!) : cell.padEnd(widths[0]!)))
      .join('  ')
  return [heads, ...rows].map(row => line(row).trimEnd()).join('\n')
}

/**
 * Format the first metrics of several models side by side, as many of each as fit `width` columns, at most `most`. A
 * metric that a model lacks is left blank.
 */
export function formatMetricsTable(
  models: Record<string, Record<string, number>>,
  width: number,
  most = 4,
): string {
  const names = new Set(Object.values(models).flatMap(metrics => Object.keys(metrics).slice(0, most)))
  const rows = Object.entries(models).map(([model, metrics]) => [
    model,
    ...Array.from(names, name => (metrics[name] === undefined ? '' : formatMetric(metrics[name]))),
  ])
  const table = formatTable(['holdout', ...Array.from(names, escapeText)], rows)
  const fits = table.split('\n').every(line => line.length <= width)
  return fits || most === 1 ? table : formatMetricsTable(models, width, most - 1)
}

/** Break a text between words into lines of at most `width` columns. A longer word has a line of its own. */
export function wrap(text: string, width: number): string {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1)!
    if (!line) lines[0] = word
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`
    else lines.push(`  ${word}`)
  }
  return lines.join('\n')
}

/** Quote one word of a command for a shell. */
export function quoteWord(word: string): string {
  return /^[\w/.:=%@+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** Draw usage against a quota as a bar: `███████░░░░░`. */
export function formatBar(used: number, limit: number, width = 20): string {
  const filled = Math.max(0, Math.min(width, Math.round((used / limit) * width)))
  return '█'.repeat(filled) + '░'.repeat(width - filled)
}

/** Control characters, line and text-direction marks. */
const marks = /[\0-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g

/**
 * Make text from outside (a trainer's output, a file's name) harmless for a terminal and a log. Control characters,
 * escape sequences, line and text-direction marks become `\xNN` or `\u{NNNN}`. A byte that is not UTF-8 becomes `\xNN`:
 * two different names never look the same.
 */
export function escapeText(raw: string | Buffer): string {
  const text = typeof raw === 'string' ? raw : decode(raw)
  return text.search(marks) < 0 ? text : text.replace(marks, escapeMark)
}

/** The written form of each mark: there are few, and a flood may be made of them. */
const escapedMarks = new Map<string, string>()

function escapeMark(mark: string): string {
  const known = escapedMarks.get(mark)
  if (known !== undefined) return known
  const code = mark.charCodeAt(0)
  const escaped = code < 256 ? hex(code) : `\\u{${code.toString(16)}}`
  escapedMarks.set(mark, escaped)
  return escaped
}

function decode(raw: Buffer): string {
  const text = raw.toString('utf8')
  if (!text.includes('\ufffd') || Buffer.from(text).equals(raw)) return text
  return Array.from(raw.toString('latin1'), byte => (byte < '\x80' ? byte : hex(byte.charCodeAt(0)))).join('')
}

function hex(code: number): string {
  return `\\x${code.toString(16).padStart(2, '0')}`
}

/** Shorten a text of more than `most` characters in its middle, by `…`: its beginning and its end tell most. */
export function shorten(text: string, most: number): string {
  if (text.length <= most) return text
  const half = Math.floor((most - 1) / 2)
  return `${text.slice(0, half)}…${text.slice(-half)}`
}

/** Cut a text of more than `width` characters, by `…` at its end. */
export function clip(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, Math.max(0, width - 1))}…` : text
}

/** One mebibyte: the meaning of every "MB" and "Mb" of this project. */
export const MIB = 2 ** 20
