import * as assert from 'uvu/assert'
import { Elsewhere } from '../../lib/training/elsewhere.ts'
import { test } from '../support/test.ts'

const MIB = 2 ** 20
/** So much of names may come in a millisecond. */
const NAMES = 2 ** 16
const crew = { pids: [1], threads: 1, ranMs: 0, made: 1, madeByAll: 1, numbers: 32_468 }
const ran = (ranMs: number) => ({ ...crew, ranMs })
const at = (writtenBytes: number, accountBytes: number, folderBytes: number, who = crew) => ({
  counters: { writtenBytes, accountBytes },
  crew: who,
  folderBytes,
})
const begun = () => new Elsewhere(at(0, 100 * MIB, 0), 0)

test('what a training writes and is not in its folder is elsewhere, and nothing of what others write at once', () => {
  const elsewhere = begun()
  elsewhere.note(900 * MIB, 1)
  assert.is(elsewhere.mostBytes(at(0, 900 * MIB, 0, ran(5)), 1), NAMES)
  assert.is(elsewhere.mostBytes(at(30 * MIB, 900 * MIB, 30 * MIB, ran(5)), 1), NAMES)
  assert.is(elsewhere.mostBytes(at(30 * MIB, 900 * MIB, 10 * MIB, ran(5)), 1), 20 * MIB + NAMES)
})

test('what comes slowly may be names, which nobody counts as written', () => {
  const slowly = begun()
  for (let ms = 1; ms <= 1000; ms++) slowly.note(100 * MIB + ms * 50 * 1024, ms)
  assert.is(slowly.mostBytes(at(0, 100 * MIB + 50_000 * 1024, 0, ran(1000)), 1000), 50_000 * 1024)
  // It takes a processor to make them.
  assert.is(slowly.mostBytes(at(0, 100 * MIB + 50_000 * 1024, 0), 1000), 0)
  const faster = begun()
  for (let second = 1; second <= 10; second++) faster.note((100 + 13 * second) * MIB, 1000 * second)
  assert.is(faster.mostBytes(at(0, 230 * MIB, 0, ran(10_000)), 10_000), 130 * MIB)
})

test('what is no longer in the folder may be elsewhere, unless the disk has it back', () => {
  const elsewhere = begun()
  elsewhere.set(at(40 * MIB, 140 * MIB, 40 * MIB), 0, 0)
  assert.is(elsewhere.mostBytes(at(40 * MIB, 140 * MIB, 0), 0), 40 * MIB)
  assert.is(elsewhere.mostBytes(at(40 * MIB, 100 * MIB, 0), 0), 0)
})

test('what was elsewhere stays there, whatever comes into the folder', () => {
  const elsewhere = begun()
  const before = at(40 * MIB, 140 * MIB, 0)
  elsewhere.set(before, elsewhere.mostBytes(before, 0), 0)
  assert.is(elsewhere.mostBytes(at(60 * MIB, 160 * MIB, 20 * MIB), 0), 40 * MIB)
  assert.is(elsewhere.mostBytes(at(80 * MIB, 180 * MIB, 20 * MIB), 0), 60 * MIB)
})

test('growth by anybody counts where some of what the training has written may be forgotten', () => {
  const grown = { counters: { writtenBytes: 0, accountBytes: 150 * MIB }, folderBytes: 0 }
  assert.is(begun().mostBytes(at(0, 150 * MIB, 0, { ...crew, made: 2 }), 0), 50 * MIB)
  assert.is(begun().mostBytes(at(0, 150 * MIB, 0, { ...crew, madeByAll: 40_000 }), 0), 50 * MIB)
  assert.is(begun().mostBytes(at(Number.NaN, 150 * MIB, 0), 0), 50 * MIB)
  assert.is(begun().mostBytes({ ...grown, crew: undefined }, 0), 50 * MIB)
})

test.run()
