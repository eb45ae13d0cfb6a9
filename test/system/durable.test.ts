import { existsSync, readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import { rename, rm, writeFile } from 'node:fs/promises'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import {
  moveDurably,
  replaceDurably,
  replaceFile,
  replaceFileSync,
  storageError,
  writeDurably,
} from '../../lib/system/durable.ts'
import { rejection } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const other = '/dev/shm'
const hasOther = existsSync(other) && statSync(other).dev !== statSync('/tmp').dev

test('writeDurably() replaces a link by a file, not what the link leads to', async () => {
  await using box = await sandbox({ precious: 'precious' })
  symlinkSync('precious', box.path('next'))

  await writeDurably(box.path('next'), 'content')

  assert.is(readFileSync(box.path('next'), 'utf8'), 'content')
  assert.is(readFileSync(box.path('precious'), 'utf8'), 'precious')
})

test('replaceFile() and its twin put a whole file in place of the old one, over what a crash has left', async () => {
  await using box = await sandbox({
    'a/page': 'old',
    'a/page.tmp': 'half',
    'b/page': 'old',
    'b/page.tmp': 'half',
  })

  await replaceFile(box.path('a/page'), 'new')
  replaceFileSync(box.path('b/page'), 'new')

  for (const folder of ['a', 'b']) {
    assert.equal(readdirSync(box.path(folder)), ['page'])
    assert.is(readFileSync(box.path(folder, 'page'), 'utf8'), 'new')
    assert.is(statSync(box.path(folder, 'page')).mode & 0o777, 0o644)
  }
})

test('replaceDurably() leaves the old file, and nothing beside it, where the new one fails', async () => {
  await using box = await sandbox({ page: 'old' })

  const error = await rejection(
    replaceDurably(box.path('page'), async temporary => {
      await writeFile(temporary, 'half')
      throw new Error('no more')
    }),
  )

  assert.is(String(error), 'Error: no more')
  assert.equal(readdirSync(box.dir), ['page'])
  assert.is(readFileSync(box.path('page'), 'utf8'), 'old')
})

test('moveDurably() makes the folders on the way, and replaces the file', async () => {
  await using box = await sandbox({ 'from/a/b/x': 'new', 'to/a/b/x': 'old', 'from/c/d/x': 'new' })

  for (const name of ['a/b/x', 'c/d/x']) await moveDurably(box.path('from'), box.path('to'), name)

  for (const name of ['a/b/x', 'c/d/x']) {
    assert.is(readFileSync(box.path('to', name), 'utf8'), 'new')
    assert.not(existsSync(box.path('from', name)))
  }
})

test('moveDurably() goes neither through a link nor through a file', async () => {
  await using box = await sandbox({ 'from/a/x': 1, 'from/b/x': 1, 'to/b': 1, 'elsewhere/y': 1 })
  symlinkSync('../elsewhere', box.path('to/a'))

  for (const name of ['a/x', 'b/x']) {
    const error = await rejection(moveDurably(box.path('from'), box.path('to'), name))
    assert.is((error as NodeJS.ErrnoException).code, 'EEXIST')
    assert.ok(existsSync(box.path('from', name)))
  }
})

skipUnless(
  test,
  hasOther,
  'needs /dev/shm',
)('storageError() says what helps against another filesystem', async () => {
  await using box = await sandbox({ x: 1 })

  const error = storageError(
    'Cannot publish x',
    await rejection(rename(box.path('x'), `${other}/ransomeye-x`)),
  )

  assert.instance(error, TrainerError)
  assert.is((error as TrainerError).exitCode, 3)
  assert.match(
    (error as TrainerError).message,
    /^Cannot publish x: EXDEV: .*; work\/ must be on the same filesystem/,
  )
})

test('storageError() says what helps where a folder stands in the place of a file', async () => {
  await using box = await sandbox({ 'manifest.json/a': '', 'manifest.json.next': '{}', 'next/a': '' })

  const refusals = [
    await rename(box.path('manifest.json.next'), box.path('manifest.json')).catch(error => error),
    await rm(box.path('next'), { force: true }).catch(error => error),
  ]

  for (const refusal of refusals) {
    const error = storageError('Cannot publish x', refusal)
    assert.match((error as TrainerError).message, /; a folder stands where that file belongs; move it away$/)
  }
})

test('storageError() leaves a defect as it is', () => {
  const defect = new TypeError('x is not a function')

  assert.is(storageError('Cannot publish x', defect), defect)
})

test.run()
