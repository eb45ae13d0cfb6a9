import { spawn, spawnSync } from 'node:child_process'
import * as assert from 'uvu/assert'
import { findStarved, isExiting, killAll } from '../../lib/system/processes.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const withTaskset = skipUnless(inSweep, !spawnSync('taskset', ['--version']).error, 'needs taskset')

withTaskset('findStarved() finds who waits for a processor that another keeps, and nobody else', async () => {
  const busy = 'while :; do :; done'
  const low = spawn('taskset', ['--cpu-list', '0', 'nice', '-n', '19', 'sh', '-c', busy])
  const idle = spawn('sleep', ['60'])
  const high = spawn('taskset', ['--cpu-list', '0', 'nice', '-n', '-20', 'sh', '-c', busy])
  try {
    await new Promise(resolve => setTimeout(resolve, 200))
    const starved = await findStarved([low.pid!, idle.pid!])

    assert.equal(starved, [low.pid])
  } finally {
    for (const child of [low, idle, high]) child.kill('SIGKILL')
  }
})

test('killAll() ends what it is shown until that is gone, and returns nothing then', async () => {
  const child = spawn('sleep', ['60'])
  const left = await killAll(() => (isExiting(child.pid!) || child.signalCode ? [] : [child.pid!]))

  assert.equal(left, [])
})

const STRANGER = 12_345
const asRoot = skipUnless(
  inSweep,
  process.geteuid?.() === 0 && !spawnSync('taskset', ['--version']).error,
  'needs root and taskset',
)

// A signal to another user's process is as one to a process in a call that hears none.
asRoot('killAll() gives up what runs on, however many of them share a processor', async () => {
  const loop = ['--cpu-list', '0', 'sh', '-c', 'while :; do :; done']
  const deaf = Array.from({ length: 6 }, () => spawn('taskset', loop, { uid: STRANGER, gid: STRANGER }))
  try {
    const startedMs = performance.now()
    const pids = deaf.map(it => it.pid!)
    const left = await asNobody(() => killAll(() => pids, 1500))

    assert.equal(left, pids)
    assert.ok(performance.now() - startedMs < 15_000)
  } finally {
    for (const child of deaf) child.kill('SIGKILL')
  }
})

test.run()
