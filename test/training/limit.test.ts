import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { planBudget } from '../../lib/training/limit.ts'
import { test } from '../support/test.ts'

const MIB = 2 ** 20
const roomy = {
  job: 'core',
  dir: '/models/core',
  quotaBytes: 3072 * MIB,
  usedBytes: 500 * MIB,
  keptBytes: 100 * MIB,
  freeBytes: 9000 * MIB,
  reserveBytes: 64 * MIB,
  minFreeBytes: 64 * MIB,
  usedInodes: 100,
  freeInodes: 1_000_000,
  reserveInodes: 1024,
  isCapped: false,
}

function limitOf(situation: typeof roomy): number {
  return planBudget(situation).limitBytes
}

function refusal(change: Partial<typeof roomy>): TrainerError {
  try {
    planBudget({ ...roomy, ...change })
  } catch (error) {
    if (error instanceof TrainerError) return error
    throw error
  }
  throw new Error('was planned')
}

test('planBudget() gives the quota where the disk has room for it', () => {
  assert.is(limitOf(roomy), 3072 * MIB)
})

test('planBudget() gives what is used and free, less the reserve, where that is less', () => {
  assert.is(limitOf({ ...roomy, freeBytes: 1000 * MIB }), (500 + 1000 - 64) * MIB)
})

test('planBudget() counts what pruning would free as writable', () => {
  assert.is(limitOf({ ...roomy, freeBytes: 64 * MIB }), 500 * MIB)
})

test('planBudget() refuses a disk that leaves too little, with both figures and what would help', () => {
  const error = refusal({ usedBytes: 100 * MIB, freeBytes: 105 * MIB })

  assert.is(error.exitCode, 3)
  assert.match(error.message, '105 MiB free on /models/core, 128 MiB needed')
  assert.match(error.message, /; free some space there and start again$/)
})

test('planBudget() refuses a quota that published models fill, with the shortfall', () => {
  const error = refusal({ usedBytes: 3200 * MIB, keptBytes: 3100 * MIB })

  assert.is(error.exitCode, 2)
  assert.match(error.message, /Model too large for quota.*by more than 28 MiB/)
})

test('planBudget() does not ask a small quota for more free space than it may use', () => {
  assert.is(limitOf({ ...roomy, quotaBytes: 2 * MIB, usedBytes: MIB, keptBytes: MIB }), 2 * MIB)
})

test('planBudget() gives the inodes that are used and free, less the reserve; all where they are not counted', () => {
  assert.is(planBudget(roomy).limitInodes, 100 + 1_000_000 - 1024)
  assert.is(
    planBudget({ ...roomy, freeInodes: Number.POSITIVE_INFINITY }).limitInodes,
    Number.POSITIVE_INFINITY,
  )
})

test('planBudget() refuses a disk without inodes, and names them', () => {
  const error = refusal({ freeInodes: 1030 })

  assert.is(error.exitCode, 3)
  assert.match(
    error.message,
    /^Cannot start core: 1030 inodes free on \/models\/core, 1088 needed \(reserve 1024\)/,
  )
})

test.run()
