import { lstatSync, mkdirSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import { Journal } from '../../lib/run/journal.ts'
import { Appender } from '../../lib/system/bounded-log.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('Appender goes on where an earlier one stopped', async () => {
  await using box = await sandbox({ log: 'one\n' })
  const log = new Appender(box.path('log'), 1000)

  log.append('two\n')
  log.close()

  assert.is(readFileSync(box.path('log'), 'utf8'), 'one\ntwo\n')
})

test('Appender goes on once its file can be made', async () => {
  await using box = await sandbox()
  const log = new Appender(box.path('logs/log'), 1000)
  log.append('lost\n')
  mkdirSync(box.path('logs'))

  log.append('kept\n')

  log.close()
  assert.ok(log.hasLost)
  assert.is(readFileSync(box.path('logs/log'), 'utf8'), 'kept\n')
})

test('Appender starts a new line after a torn one', async () => {
  await using box = await sandbox({ log: '{"half' })
  const log = new Appender(box.path('log'), 1000)

  log.append('{}\n')
  log.close()

  assert.is(readFileSync(box.path('log'), 'utf8'), '{"half\n{}\n')
})

test('Appender keeps to twice its size where more is appended at once, and loses a line that is longer than it', async () => {
  await using box = await sandbox()
  const log = new Appender(box.path('log'), 1000)
  const lines = Array.from({ length: 500 }, (_, n) => `line ${n}\n`)

  log.append(lines.join(''))
  assert.not(log.hasLost)
  log.append(`first\n${'x'.repeat(1000)}\nlast\n`)
  log.close()

  const kept = readFileSync(box.path('log.1'), 'utf8') + readFileSync(box.path('log'), 'utf8')
  assert.ok(kept.endsWith('line 498\nline 499\nfirst\nlast\n'))
  assert.ok(kept.length <= 2000, `${kept.length} bytes`)
  assert.ok(log.hasLost)
})

test('Appender keeps the newest of much more than its size, and never twice its size', async () => {
  await using box = await sandbox()
  const log = new Appender(box.path('log'), 1000)

  for (let line = 0; line < 500; line++) log.append(`line ${line}\n`)
  log.close()

  const kept = readFileSync(box.path('log.1'), 'utf8') + readFileSync(box.path('log'), 'utf8')
  assert.ok(kept.endsWith('line 498\nline 499\n'))
  assert.ok(kept.length > 1000 && kept.length <= 2000, `${kept.length} bytes`)
})

test('Appender sets aside a log that has grown too large before', async () => {
  await using box = await sandbox({ log: 5000 })
  const log = new Appender(box.path('log'), 1000)

  log.append('fresh\n')
  log.close()

  assert.is(readFileSync(box.path('log'), 'utf8').trim(), 'fresh')
  assert.is(statSync(box.path('log.1')).size, 5000)
})

test('Appender never writes through a link', async () => {
  await using box = await sandbox({ precious: 'untouched' })
  symlinkSync(box.path('precious'), box.path('log'))
  const log = new Appender(box.path('log'), 1000)

  log.append('line\n')
  log.close()

  assert.is(readFileSync(box.path('precious'), 'utf8'), 'untouched')
  assert.ok(lstatSync(box.path('log')).isFile())
})

test('Appender sets a folder aside', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('log'))
  const log = new Appender(box.path('log'), 1000)

  log.append('line\n')
  log.close()

  assert.is(readFileSync(box.path('log'), 'utf8'), 'line\n')
})

test('Appender sets aside a folder beside an older log, and a log beside a folder in the place of an older one', async () => {
  await using box = await sandbox({ 'one.1': 'older\n', two: 5000 })
  for (const name of ['one', 'two.1']) mkdirSync(box.path(name))

  for (const name of ['one', 'two']) {
    const log = new Appender(box.path(name), 1000)
    log.append('line\n')
    log.close()
    assert.is(readFileSync(box.path(name), 'utf8').trim(), 'line')
  }

  assert.is(readFileSync(box.path('one.1'), 'utf8'), 'older\n')
  assert.ok(lstatSync(box.path('one.aside')).isDirectory())
  assert.is(statSync(box.path('two.aside')).size, 5000)
})

test('Appender drops lines when it cannot write, and does not throw', async () => {
  await using box = await sandbox()
  const log = new Appender(box.path('missing', 'log'), 1000)

  log.append('line\n')
  log.close()

  assert.not.ok(lstatSync(box.path('missing'), { throwIfNoEntry: false }))
})

test('Journal says once that it cannot be written, and never after what a run says last', async () => {
  await using box = await sandbox()
  const shown: TrainerEvent[] = []
  const journal = new Journal(box.path('missing'))
  journal.listen(event => shown.push(event))

  for (const message of ['one', 'two', 'three']) {
    journal.emit({ event: 'warning', message })
    journal.flush()
  }
  journal.close()

  const messages = shown.map(it => (it.event === 'warning' ? it.message : ''))
  assert.match(messages[1]!, /^events are missing in .*events\.jsonl, which cannot be written/)
  assert.equal([messages.length, ...messages.filter(it => it.length < 9)], [4, 'one', 'two', 'three'])
})

test('the journal keeps to its bound in one turn of the event loop, however much is told in it', async () => {
  await using box = await sandbox()
  const journal = new Journal(box.dir)
  const message = 'x'.repeat(2 ** 20)

  for (let n = 0; n < 40; n++) journal.emit({ event: 'warning', message })
  journal.emit({ event: 'warning', message: 'last' })
  journal.close()

  const sizes = ['events.jsonl', 'events.jsonl.1'].map(name => statSync(box.path(name)).size)
  assert.ok(
    sizes.every(size => size > 0 && size <= 8 * 2 ** 20),
    sizes.join(' '),
  )
  assert.ok(readFileSync(box.path('events.jsonl'), 'utf8').endsWith('"last"}\n'))
})

test.run()
