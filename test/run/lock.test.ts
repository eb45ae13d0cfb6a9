import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, closeSync, existsSync, openSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { takeLock } from '../../lib/run/lock.ts'
import { findHolder, findHolderElsewhere } from '../../lib/run/lock-holders.ts'
import { formatRecord } from '../../lib/run/lock-record.ts'
import { freeSpace } from '../../lib/storage/capacity.ts'
import { readProc } from '../../lib/system/processes.ts'
import { root } from '../support/places.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'

async function refusal(stateDir: string): Promise<TrainerError> {
  try {
    ;(await takeLock(stateDir)).release()
  } catch (error) {
    if (error instanceof TrainerError) return error
    throw error
  }
  throw new Error('the lock was given')
}

test('takeLock() writes our pid and gives the lock once', async () => {
  await using box = await sandbox()
  const lock = await takeLock(box.dir)

  const error = await refusal(box.dir)

  assert.is(error.code, 'locked')
  assert.ok(error.message.includes(`pid ${process.pid};`), error.message)
  assert.is(readFileSync(box.path('lock'), 'utf8'), formatRecord())
  lock.release()
  ;(await takeLock(box.dir)).release()
})

inSweep(
  'takeLock() is refused while a child that inherited the descriptor lives, and names that child',
  async () => {
    await using box = await sandbox()
    const lock = await takeLock(box.dir)
    const child = spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore', lock.fd] })
    lock.release()

    const error = await refusal(box.dir)

    assert.ok(error.message.includes(`pid ${child.pid};`), error.message)
    child.kill('SIGKILL')
    await until('the lock is free', () =>
      takeLock(box.dir).then(
        free => [free.release()],
        () => undefined,
      ),
    )
  },
)

test('takeLock() waits for a holder that has been seen for long and cannot be seen any more', async () => {
  await using box = await sandbox()
  const lock = await takeLock(box.dir)
  // A descriptor on its way through a socket is nobody's.
  const script = `
import os, socket, time
here, there = socket.socketpair()
time.sleep(1.3)
socket.send_fds(here, [b'x'], [3])
os.close(3)
time.sleep(0.3)`
  const child = spawn('/usr/bin/python3', ['-c', script], { stdio: ['ignore', 'ignore', 'ignore', lock.fd] })
  lock.release()

  const taken = await takeLock(box.dir)

  taken.release()
  child.kill('SIGKILL')
})

test('takeLock() sees a holder whose first thread has ended, and ends it if it is an orphaned training', async () => {
  await using box = await sandbox({ beats: '' })
  const lock = await takeLock(box.dir)
  const env = { ...process.env, RANSOMEYE_OUTPUT_DIR: box.path('core', 'work') }
  const program = join(root, 'test/fixtures/headless.py')
  const child = spawn('/usr/bin/python3', [program, box.path('beats')], {
    env,
    stdio: ['ignore', 'ignore', 'ignore', lock.fd],
  })
  const ended = once(child, 'exit')
  await until('its first thread has ended', () =>
    / Z /.test(readProc(`${child.pid}/task/${child.pid}/stat`) ?? ''),
  )
  lock.release()

  const taken = await takeLock(box.dir)

  assert.is((await ended)[1], 'SIGKILL')
  taken.release()
})

const asRoot = skipUnless(test, process.getuid?.() === 0, 'needs root')
const asRootInSweep = skipUnless(inSweep, process.getuid?.() === 0, 'needs root')

test('takeLock() is refused while a run goes on whose lock file somebody has removed; findHolder() finds it', async () => {
  await using box = await sandbox()
  const lock = await takeLock(box.dir)
  rmSync(box.path('lock'))

  const { code, message } = await refusal(box.dir)

  assert.is(code, 'locked')
  assert.ok(message.includes(`pid ${process.pid};`), message)
  assert.equal(findHolder(box.dir), { pid: process.pid })
  lock.release()
  assert.is(findHolder(box.dir), undefined)
})

asRoot('takeLock() leaves a run in a container alone, which has written down another pid', async () => {
  await using box = await sandbox()
  // Its training holds the lock too, as one without a sandbox does.
  const script = `
    exec 3> "$1"
    flock -n 3
    echo $$ >&3
    RANSOMEYE_OUTPUT_DIR=/x sleep 60 &
    wait`
  const container = spawn(
    'unshare',
    ['-p', '-f', '--kill-child', '--mount-proc', 'bash', '-c', script, 'bash', box.path('lock')],
    { stdio: 'ignore' },
  )
  await until('the lock is held', () => findHolder(box.dir))

  const { code, message } = await refusal(box.dir)

  assert.is(code, 'locked')
  const pid = Number(/pid (\d+);/.exec(message)?.[1])
  assert.match(readProc(`${pid}/cmdline`) ?? '', /bash/)
  container.kill('SIGKILL')
  await until('the lock is free', () => !findHolder(box.dir))
})

asRootInSweep('takeLock() on a full disk goes without the block that another writer waits for', async () => {
  await using box = await sandbox()
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', box.dir])
  ;(await takeLock(box.dir)).release()
  const writer = spawn('sh', ['-c', `while :; do echo x >> ${box.path('fill')}; done`], { stdio: 'ignore' })
  try {
    await until('the disk is full', () => freeSpace(box.dir) === 0)

    for (let round = 0; round < 20; round++) (await takeLock(box.dir)).release()
  } finally {
    writer.kill('SIGKILL')
    await once(writer, 'exit')
    execFileSync('umount', [box.dir])
  }
})

test('takeLock() ends a training whose orchestrator is gone, even a frozen one', async () => {
  await using box = await sandbox()
  const lock = await takeLock(box.dir)
  const env = { ...process.env, RANSOMEYE_OUTPUT_DIR: box.path('core', 'work') }
  const child = spawn('sleep', ['60'], { env, stdio: ['ignore', 'ignore', 'ignore', lock.fd] })
  child.kill('SIGSTOP')
  const ended = new Promise(resolve => child.once('exit', (_, signal) => resolve(signal)))
  lock.release()

  const taken = await takeLock(box.dir)

  assert.is(await ended, 'SIGKILL')
  taken.release()
})

test('takeLock() does not take a process that merely has the file open for a holder', async () => {
  await using box = await sandbox({ lock: '1\n' })
  const bystander = openSync(box.path('lock'), 'r')

  const lock = await takeLock(box.dir)

  lock.release()
  closeSync(bystander)
})

test('takeLock() refuses a lock that is a symbolic link, and does not touch what it names', async () => {
  await using box = await sandbox()
  symlinkSync(box.path('elsewhere'), box.path('lock'))

  const error = await refusal(box.dir)

  assert.is(error.exitCode, 3)
  assert.match(error.message, 'symbolic link')
  assert.not(existsSync(box.path('elsewhere')))
})

test('takeLock() takes over whatever text an earlier run has left', async () => {
  await using box = await sandbox({ lock: 'not a pid, and much longer than one\n'.repeat(100) })

  const lock = await takeLock(box.dir)

  assert.is(readFileSync(box.path('lock'), 'utf8'), formatRecord())
  lock.release()
})

test('a run on another machine that has written itself down is told of as that, and not after its own reboot', async () => {
  const record = (host: string) => `17\nhost ${host}\nboot 00000000-0000-0000-0000-000000000000\njob 4\n`
  await using box = await sandbox({ 'far/lock': record('n2'), 'near/lock': record(hostname()) })
  chmodSync(box.path('far/lock'), 0o600)

  const far = findHolderElsewhere(box.path('far'))

  assert.equal([far?.host, far?.slurmJob], ['n2', '4'])
  assert.is(findHolderElsewhere(box.path('near')), undefined)
})

test.run()
