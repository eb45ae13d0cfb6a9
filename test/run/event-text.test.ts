import * as assert from 'uvu/assert'
import { type EventBody, stampEvent } from '../../lib/events.ts'
import { describeEvent } from '../../lib/run/event-text.ts'
import { TextLines } from '../../lib/run/output.ts'
import { test } from '../support/test.ts'

const MIB = 2 ** 20

test('a pause in which nothing had to go is not told as one of pruning', () => {
  const words = [
    describeEvent({ event: 'train.freeze', job: 'core', usedBytes: 60 * MIB }),
    describeEvent({ event: 'train.resume', job: 'core', usedBytes: MIB, pausedMs: 12, countedOnly: true }),
    describeEvent({ event: 'train.resume', job: 'core', usedBytes: MIB, pausedMs: 12 }),
  ]

  assert.equal(words, [
    `paused to count: up to 60 MiB in use by the filesystem's account`,
    'resumed at 1 MiB after 12 ms; nothing was pruned',
    'resumed at 1 MiB after 12 ms',
  ])
})

test('of the pauses in which nothing had to go only the first is told in lines', () => {
  const told: string[] = []
  const lines = new TextLines()
  const { write } = process.stdout
  process.stdout.write = (text: string | Uint8Array) => !!told.push(String(text))
  const take = (body: EventBody) => lines.take(stampEvent('r', body))
  try {
    for (const countedOnly of [true, true, undefined, true] as const) {
      take({ event: 'train.freeze', job: 'core', usedBytes: 60 * MIB })
      take({
        event: 'train.resume',
        job: 'core',
        usedBytes: MIB,
        pausedMs: 12,
        ...(countedOnly && { countedOnly }),
      })
    }
  } finally {
    process.stdout.write = write
  }

  const words = told.map(line => line.split(' ').slice(2).join(' ').trim())
  const paused = `paused to count: up to 60 MiB in use by the filesystem's account`
  assert.equal(words, [
    paused,
    'resumed at 1 MiB after 12 ms; nothing was pruned',
    paused,
    'resumed at 1 MiB after 12 ms',
  ])
})

test.run()
