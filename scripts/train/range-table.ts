import type { Random } from './random.ts'

/** A range to draw from; both bounds are the same where there is nothing to draw. */
export type Range = readonly [low: number, high: number]

/**
 * Read a table of ranges. Its first line names the columns; each other line has a name and a cell for each column:
 * `low-high`, one number, or `~` for the range in `usual`.
 *
 * @throws {Error} if the columns are others, or a cell is none of these
 * @example readRanges(['gapS', 'jitter'], `
 *            gapS   jitter
 *   browsing 5-60   .8-1.5`)
 */
export function readRanges<Column extends string>(
  columns: readonly Column[],
  table: string,
  usual?: Readonly<Record<Column, Range>>,
): Record<string, Record<Column, Range>> {
  const [heads, ...lines] = table
    .trim()
    .split('\n')
    .map(line => line.trim().split(/\s+/))
  if (heads?.join() !== columns.join()) throw new Error(`columns are ${heads}, expected ${columns}`)
  const rows = lines.map(([name, ...cells]) => {
    const ranges = columns.map((column, index) => [column, readRange(cells[index], usual?.[column])])
    return [name, Object.fromEntries(ranges)]
  })
  return Object.fromEntries(rows)
}

function readRange(cell = '', usual?: Range): Range {
  if (cell === '~' && usual) return usual
  const bounds = cell.split('-').map(Number)
  const [low = Number.NaN, high = low] = bounds
  if (cell === '' || bounds.length > 2 || !(low <= high)) throw new Error(`"${cell}" is not a range`)
  return [low, high]
}

/** Draw a value for each column: evenly for those in `levels`, evenly in the logarithm for the others. */
export function drawRow<Column extends string>(
  row: Readonly<Record<Column, Range>>,
  levels: ReadonlySet<string>,
  random: Random,
): Record<Column, number> {
  const values = Object.entries<Range>(row).map(([column, [low, high]]) => {
    if (low === high) return [column, low]
    return [column, levels.has(column) ? random.uniform(low, high) : random.logUniform(low, high)]
  })
  return Object.fromEntries(values)
}
