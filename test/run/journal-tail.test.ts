import { appendFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { stampEvent } from '../../lib/events.ts'
import { Journal } from '../../lib/run/journal.ts'
import { endOfJournal, JournalTail } from '../../lib/run/journal-tail.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const lineOf = (message: string, run = 'r') =>
  `${JSON.stringify(stampEvent(run, { event: 'warning', message }))}\n`
const messagesOf = (tail: JournalTail) =>
  tail.read().flatMap(event => (event.event === 'warning' ? [event.message] : []))

test('a tail gives what comes after its place, each event once and only whole', async () => {
  await using box = await sandbox({ 'events.jsonl': lineOf('before') })
  const tail = new JournalTail(box.dir, endOfJournal(box.dir))
  const path = box.path('events.jsonl')

  assert.equal(messagesOf(tail), [])
  appendFileSync(path, lineOf('one') + lineOf('two').slice(0, 30))
  assert.equal(messagesOf(tail), ['one'])
  assert.equal(messagesOf(tail), [])
  appendFileSync(path, `${lineOf('two').slice(30)}garbage\n${lineOf('three')}`)
  assert.equal(messagesOf(tail), ['two', 'three'])
})

test('a tail begins before there is a journal', async () => {
  await using box = await sandbox()
  const tail = new JournalTail(box.dir, endOfJournal(box.dir))
  assert.equal(messagesOf(tail), [])

  const journal = new Journal(box.dir)
  journal.emit({ event: 'warning', message: 'first' })
  journal.close()

  assert.equal(messagesOf(tail), ['first'])
})

test('a tail loses nothing when the journal is rotated', async () => {
  await using box = await sandbox({ 'events.jsonl': lineOf('before') })
  const tail = new JournalTail(box.dir, endOfJournal(box.dir))
  const path = box.path('events.jsonl')

  appendFileSync(path, lineOf('last of the old'))
  renameSync(path, `${path}.1`)
  appendFileSync(path, lineOf('first of the new'))

  assert.equal(messagesOf(tail), ['last of the old', 'first of the new'])
})

test('a tail reads what was rotated away to its end, however much it is', async () => {
  await using box = await sandbox({ 'events.jsonl': lineOf('before') })
  const tail = new JournalTail(box.dir, endOfJournal(box.dir))
  const path = box.path('events.jsonl')
  const filling = lineOf('x'.repeat(50_000))

  appendFileSync(path, filling.repeat(150) + lineOf('last of the old'))
  renameSync(path, `${path}.1`)
  appendFileSync(path, lineOf('first of the new'))

  assert.equal(messagesOf(tail).slice(150), ['last of the old', 'first of the new'])
})

test('a tail reads all that is left of a journal that was rotated twice', async () => {
  await using box = await sandbox({ 'events.jsonl': lineOf('before', 'r0') })
  const before = endOfJournal(box.dir)
  const path = box.path('events.jsonl')
  for (const [index, message] of ['one', 'two', 'three'].entries()) {
    renameSync(path, `${path}.1`)
    writeFileSync(path, lineOf(message, `r${index + 1}`))
  }
  // A new file may have the inode of the one that is deleted.
  const inodes = [before.inode, statSync(path).ino, statSync(`${path}.1`).ino]
  const places = inodes.flatMap(inode => [20, 1000].map(bytes => ({ ...before, inode, bytes })))

  for (const place of [...places, { inode: 0, head: '', bytes: 0 }]) {
    const tail = new JournalTail(box.dir, place)
    assert.equal(messagesOf(tail), ['two', 'three'], JSON.stringify(place))
    assert.equal(messagesOf(tail), [])
  }
})

test.run()
