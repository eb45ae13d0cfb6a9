import * as assert from 'uvu/assert'
import { Random } from '../../scripts/train/random.ts'
import { drawRow, readRanges } from '../../scripts/train/range-table.ts'
import { test } from '../support/test.ts'

test('readRanges() reads ranges, single numbers and what is usual, and refuses anything else', () => {
  const usual = { gap: [1, 2], size: [3, 4] } as const

  const table = readRanges(['gap', 'size'], 'gap size\n web .5-60 2e3\n dns ~ 7', usual)

  assert.equal(table, { web: { gap: [0.5, 60], size: [2000, 2000] }, dns: { gap: [1, 2], size: [7, 7] } })
  assert.throws(() => readRanges(['gap', 'size'], 'size gap\n web 1 2'), /columns are size,gap/)
  assert.throws(() => readRanges(['gap'], 'gap\n web 9-3'), /"9-3" is not a range/)
  assert.throws(() => readRanges(['gap'], 'gap\n web ~'), /"~" is not a range/)
  assert.throws(() => readRanges(['gap', 'size'], 'gap size\n web 1'), /"" is not a range/)
})

test('drawRow() stays within the ranges, in the middle of them or of their logarithms', () => {
  const random = Random.seeded(4, 'rows')
  const row = { share: [0, 1], bytes: [1, 10_000], fixed: [0, 0] } as const

  const draws = Array.from({ length: 1001 }, () => drawRow(row, new Set(['share']), random))

  const median = (column: keyof typeof row) => draws.map(draw => draw[column]).sort((a, b) => a - b)[500]!
  assert.ok(draws.every(({ share, bytes }) => share >= 0 && share <= 1 && bytes >= 1 && bytes <= 10_000))
  assert.ok(Math.abs(median('share') - 0.5) < 0.1)
  assert.ok(median('bytes') > 50 && median('bytes') < 200)
  assert.is(median('fixed'), 0)
})

test.run()
