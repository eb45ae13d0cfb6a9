import { formatBytes, formatSeconds } from '../../lib/text.ts'

/** The means that every group is given. */
export type Bench = {
  /** Aborted by SIGINT and SIGTERM: a group ends at its next step, and cleans up. */
  signal: AbortSignal
  /** How long to watch an idle training. */
  idleMs: number
}

/** A table's rows, as they are measured. */
export type Group = (bench: Bench) => AsyncGenerator<Row>

/** One figure of ours beside another's in the same unit, or why there is none. */
export type Row = { what: string } & (
  | {
      ours: number
      beside?: { what: string; value: number }
      format: (value: number) => string
      aim?: { atMost: number; of: 'ours' | 'ratio' }
    }
  | { unmeasured: string }
)

export const tableHead = `| | ours | beside it | ratio | aim | met |
| --- | ---: | ---: | ---: | ---: | --- |`

/** A row of a Markdown table. */
export function formatRow(row: Row): string {
  if ('unmeasured' in row) return line([row.what, `not measured: ${row.unmeasured}`, '', '', '', ''])
  const { what, ours, beside, format, aim } = row
  const ratio = beside?.value ? ours / beside.value : undefined
  const figure = aim?.of === 'ratio' ? ratio : ours
  return line([
    what,
    format(ours),
    beside ? `${beside.what}: ${format(beside.value)}` : '',
    ratio === undefined ? '' : formatRatio(ratio),
    aim ? `≤ ${aim.of === 'ratio' ? formatRatio(aim.atMost) : format(aim.atMost)}` : '',
    aim && figure !== undefined ? (figure <= aim.atMost ? 'yes' : 'no') : '',
  ])
}

function line(cells: string[]): string {
  return `| ${cells.map(cell => cell.replaceAll('|', '\\|').replaceAll('\n', ' ')).join(' | ')} |`
}

function formatRatio(ratio: number): string {
  return ratio > 0 && ratio < 0.005 ? '< 0.01 ×' : `${ratio.toFixed(2)} ×`
}

/** Milliseconds as `2.7 µs`, `9.2 ms`, `11.3 s` or `1 min 05 s`. */
export function formatMs(ms: number): string {
  if (ms < 0.1) return `${(ms * 1000).toFixed(1)} µs`
  if (ms >= 60_000) return formatSeconds(ms / 1000)
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`
  return `${ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`
}

/** Bytes exactly where they are few. */
export function formatOvershoot(bytes: number): string {
  return bytes < 100_000 ? `${bytes} bytes` : formatBytes(bytes)
}
