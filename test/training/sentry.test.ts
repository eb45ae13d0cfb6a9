import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { isStopped } from '../../lib/system/processes.ts'
import { Sentry } from '../../lib/training/sentry.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

/** Hold up this thread, as a read that has to wait does. */
const holdUp = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

test('Sentry stops a training while nobody watches it, once its disk is full, and before long in any case', async () => {
  await using box = await sandbox()
  const child = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' })
  const pid = child.pid!
  const sentry = new Sentry(box.dir, { pid, sandbox: undefined })
  const isStoppedAfter = (ms: number) => {
    sentry.hasStopped()
    holdUp(ms)
    const is = [isStopped(pid), sentry.hasStopped(), sentry.hasStopped()]
    process.kill(-pid, 'SIGCONT')
    return is
  }
  try {
    // Its thread has begun when it has stopped something.
    sentry.allow(0)
    await until('it stands sentry', () => isStoppedAfter(500)[1])

    await delay(200)
    const full = isStoppedAfter(700)
    sentry.allow(Number.MAX_SAFE_INTEGER)
    await delay(200)
    const withRoom = isStoppedAfter(600)
    await delay(200)
    const forLong = isStoppedAfter(2000)
    await delay(200)
    sentry.close()
    const closed = isStoppedAfter(1500)

    assert.equal(full, [true, true, false])
    assert.equal(withRoom, [false, false, false])
    assert.equal(forLong, [true, true, false])
    assert.equal(closed, [false, false, false])
  } finally {
    sentry.close()
    child.kill('SIGKILL')
  }
})

test.run()
