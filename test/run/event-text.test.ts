import * as assert from 'uvu/assert'
import { describeEvent } from '../../lib/run/event-text.ts'
import { test } from '../support/test.ts'

const MIB = 2 ** 20

test('a pause in which nothing had to go is not told as one of pruning', () => {
  const words = [
    describeEvent({ event: 'train.freeze', job: 'core', usedBytes: 60 * MIB }),
    describeEvent({ event: 'train.resume', job: 'core', usedBytes: MIB, pausedMs: 12, countedOnly: true }),
    describeEvent({ event: 'train.resume', job: 'core', usedBytes: MIB, pausedMs: 12 }),
  ]

  assert.equal(words, [
    'paused to count: it may use 60 MiB by now',
    'resumed at 1 MiB after 12 ms; nothing was pruned',
    'resumed at 1 MiB after 12 ms',
  ])
})

test.run()
