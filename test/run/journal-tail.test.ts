import { appendFileSync, renameSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { stampEvent } from '../../lib/events.ts'
import { Journal } from '../../lib/run/journal.ts'
import { endOfJournal, JournalTail } from '../../lib/run/journal-tail.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const lineOf = (message: string) => `${JSON.stringify(stampEvent('r', { event: 'warning', message }))}\n`
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

test.run()
