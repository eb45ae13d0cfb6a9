import * as assert from 'uvu/assert'
import { Unfound } from '../../lib/training/unfound.ts'
import { test } from '../support/test.ts'

const found = (usedBytes: number, allocatedBytes = usedBytes) => ({ usedBytes, allocatedBytes })
const at = (writtenBytes: number, accountBytes: number) => ({ writtenBytes, accountBytes })

test('what is written while a look goes on counts for nothing', () => {
  const unfound = new Unfound(true)
  // The first look finds all that is written while it goes on.
  assert.is(unfound.note(at(0, 0), found(40), at(40, 300)), 0)
  // The next one finds nothing more, though others write on, and so does the training in its end.
  assert.is(unfound.note(at(40, 500), found(40), at(60, 900)), 0)
  assert.is(unfound.note(at(60, 900), found(60), at(60, 900)), 0)
})

test('what a training writes and no look finds is told, whatever others write', () => {
  const unfound = new Unfound(true)
  unfound.note(at(0, 0), found(10), at(0, 0))
  assert.is(unfound.note(at(30, 90), found(25), at(30, 90)), 15)
  assert.is(unfound.note(at(50, 120), found(25), at(50, 120)), 35)
})

test('only growth by others is told of no training that has written nothing', () => {
  const unfound = new Unfound(true)
  unfound.note(at(0, 0), found(10), at(0, 0))
  assert.is(unfound.note(at(0, 500), found(10), at(0, 500)), 0)
})

test('a file that is deleted or renamed between two looks is no growth', () => {
  const unfound = new Unfound(true)
  unfound.note(at(0, 0), found(40), at(0, 0))
  assert.is(unfound.note(at(0, 0), found(0), at(0, 0)), 0)
})

test('to overwrite what stands there is no growth', () => {
  const unfound = new Unfound(true)
  unfound.note(at(0, 100), found(40), at(0, 100))
  assert.is(unfound.note(at(40, 100), found(40), at(40, 100)), 0)
})

test('a filesystem that counts late is not asked whether it has grown', () => {
  const unfound = new Unfound(false)
  unfound.note(at(0, 100), found(10), at(0, 100))
  assert.is(unfound.note(at(40, 100), found(10), at(40, 100)), 40)
})

test("only the filesystem's account is left where the training's processes keep others out", () => {
  const unfound = new Unfound(true)
  unfound.note(at(Number.NaN, 0), found(10), at(Number.NaN, 0))
  assert.is(unfound.note(at(Number.NaN, 30), found(15), at(Number.NaN, 30)), 25)
})

test('to fill a sparse file, or to write what is compressed, is no growth that nobody finds', () => {
  const sparse = new Unfound(true)
  sparse.note(at(0, 0), found(300, 10), at(0, 0))
  assert.is(sparse.note(at(200, 200), found(300, 210), at(200, 200)), 0)
  const compressed = new Unfound(false)
  compressed.note(at(0, 0), found(300, 10), at(0, 0))
  assert.is(compressed.note(at(200, 0), found(500, 20), at(200, 0)), 0)
})

test('what was pruned meanwhile begins it anew', () => {
  const unfound = new Unfound(true)
  unfound.note(at(0, 0), found(10), at(0, 0))
  unfound.forget()
  assert.is(unfound.note(at(90, 90), found(10), at(90, 90)), 0)
  assert.is(unfound.note(at(100, 100), found(10), at(100, 100)), 10)
})

test.run()
