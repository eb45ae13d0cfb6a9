import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { readEvents } from '../../lib/reports/past-events.ts'
import { MIB } from '../../lib/text.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const stamp = { time: '2026-03-01T10:00:00.000Z', level: 'info', run: 'r1' }
const skip = (reason: string) => JSON.stringify({ ...stamp, event: 'job.skip', job: 'core', reason })
const reasonsIn = (dir: string) =>
  Array.from(readEvents(dir), event => (event.event === 'job.skip' ? event.reason : event.event))

test('readEvents() reads the rotated file before the current one', async () => {
  await using box = await sandbox({
    'events.jsonl': `${skip('second')}\n`,
    'events.jsonl.1': `${skip('first')}\n`,
  })

  const reasons = reasonsIn(box.dir)

  assert.equal(reasons, ['first', 'second'])
})

test('readEvents() finds nothing where there is no journal', async () => {
  await using box = await sandbox()

  assert.equal(reasonsIn(box.path('missing')), [])
})

test('readEvents() leaves out torn lines, garbage, and events it does not know', async () => {
  const garbage = [
    skip('torn').slice(0, -5),
    '\0\xff\x1b[31m',
    'null',
    '[]',
    '{"event":"job.skip"}',
    skip('a job that is none').replace('"core"', '"kernel"'),
    skip('no time').replace(stamp.time, 'yesterday'),
    JSON.stringify({ ...stamp, event: 'run.done', exitCode: '0' }),
    JSON.stringify({ ...stamp, event: 'run.done', exitCode: 0 }).replace(':0', ':1e999'),
    JSON.stringify({ ...stamp, event: 'day2.check' }),
    '',
  ]
  await using box = await sandbox({ 'events.jsonl': [skip('a'), ...garbage, skip('b')].join('\n') })

  const reasons = reasonsIn(box.dir)

  assert.equal(reasons, ['a'])
})

test('readEvents() does not trust a last line that has no newline yet', async () => {
  await using box = await sandbox({ 'events.jsonl': `${skip('whole')}\n${skip('being written')}` })

  assert.equal(reasonsIn(box.dir), ['whole'])
})

test('readEvents() passes over a line of any length', async () => {
  await using box = await sandbox({
    'events.jsonl': `${skip('a')}\n${skip('x'.repeat(3 * MIB))}\n${skip('b')}\n`,
  })

  assert.equal(reasonsIn(box.dir), ['a', 'b'])
})

test('readEvents() reads a line that is cut by the end of a piece', async () => {
  const reasons = Array.from({ length: 5000 }, (_, index) => `${index} ${'é'.repeat(index % 40)}`)
  await using box = await sandbox({ 'events.jsonl': reasons.map(reason => `${skip(reason)}\n`).join('') })

  assert.equal(reasonsIn(box.dir), reasons)
})

test('readEvents() reads the end of a file that was blown up, in bounded memory', async () => {
  await using box = await sandbox({
    'events.jsonl': `${skip('lost')}\n${`${'x'.repeat(1023)}\n`.repeat(40 * 1024)}${skip('kept')}\n`,
  })
  const before = process.memoryUsage().rss

  const reasons = reasonsIn(box.dir)

  assert.equal(reasons, ['kept'])
  assert.ok(process.memoryUsage().rss - before < 64 * MIB)
})

test('readEvents() follows no link and reads nothing but a file', async () => {
  await using box = await sandbox({ elsewhere: `${skip('elsewhere')}\n` })
  symlinkSync(box.path('elsewhere'), box.path('events.jsonl'))
  mkdirSync(box.path('events.jsonl.1'))

  assert.equal(reasonsIn(box.dir), [])
})

test('readEvents() reads a file once that has both names, as in the middle of a rotation', async () => {
  await using box = await sandbox()
  writeFileSync(box.path('events.jsonl'), `${skip('once')}\n`)
  linkSync(box.path('events.jsonl'), box.path('events.jsonl.1'))

  assert.equal(reasonsIn(box.dir), ['once'])
})

test.run()
