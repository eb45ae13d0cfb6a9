import * as assert from 'uvu/assert'
import { Elsewhere } from '../../lib/training/elsewhere.ts'
import { test } from '../support/test.ts'

const crew = { pids: [1], threads: 1, made: 1, madeByAll: 1 }
const at = (writtenBytes: number, accountBytes: number, folderBytes: number, who = crew) => ({
  counters: { writtenBytes, accountBytes },
  crew: who,
  folderBytes,
})
const begun = () => new Elsewhere(at(0, 100, 0), true)

test('what a training writes and is not in its folder is elsewhere, and nothing of what others write', () => {
  const elsewhere = begun()
  assert.is(elsewhere.mostBytes(at(0, 900, 0)), 0)
  assert.is(elsewhere.mostBytes(at(30, 900, 30)), 0)
  assert.is(elsewhere.mostBytes(at(30, 900, 10)), 20)
})

test('what is no longer in the folder may be elsewhere, unless the disk has it back', () => {
  const elsewhere = begun()
  elsewhere.set(at(40, 140, 40), 0)
  assert.is(elsewhere.mostBytes(at(40, 140, 0)), 40)
  assert.is(elsewhere.mostBytes(at(40, 100, 0)), 0)
})

test('what was elsewhere stays there, whatever comes into the folder', () => {
  const elsewhere = begun()
  elsewhere.set(at(40, 140, 0), elsewhere.mostBytes(at(40, 140, 0)))
  assert.is(elsewhere.mostBytes(at(60, 160, 20)), 40)
  assert.is(elsewhere.mostBytes(at(80, 180, 20)), 60)
})

test('growth by anybody counts where some of what the training has written may be forgotten', () => {
  const elsewhere = begun()
  assert.is(elsewhere.mostBytes(at(0, 150, 0, { ...crew, made: 2 })), 50)
  assert.is(elsewhere.mostBytes(at(Number.NaN, 150, 0)), 50)
  const unknown = { counters: { writtenBytes: 0, accountBytes: 150 }, crew: undefined, folderBytes: 0 }
  assert.is(elsewhere.mostBytes(unknown), 50)
})

test.run()
