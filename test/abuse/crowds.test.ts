import { spawn, spawnSync } from 'node:child_process'
import { chownSync, existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { ownDisk } from '../support/own-disk.ts'
import { isSweep } from '../support/places.ts'
import { type Rig, type Started, trainerRig, untilEvent } from '../support/rig.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { hasLoopDevices, must } from '../support/volume-rig.ts'

const MIB = 2 ** 20
/** As in the tests of the account. */
const MOST_MS = isSweep ? 1500 : 1000
const STRANGER = 12_345
const identities = [
  { name: 'root', uid: 0, prefix: [] },
  {
    name: 'an ordinary user',
    uid: STRANGER,
    prefix: ['setpriv', `--reuid=${STRANGER}`, `--regid=${STRANGER}`, '--clear-groups'],
  },
]
const hasPython = spawnSync('python3', ['--version']).status === 0
const hostile = skipUnless(
  inSweep,
  hasLoopDevices && hasPython && useSandbox('core', 'auto'),
  'needs root, loop devices, python3 and bubblewrap',
)
const withFuse = skipUnless(
  inSweep,
  hasLoopDevices && hasPython && existsSync('/dev/fuse') && !spawnSync('mount.exfat-fuse', ['-V']).error,
  'needs root, loop devices, python3, exfat-fuse and exfatprogs',
)

const trains = (script: string) => ({
  train: [
    '/usr/bin/python3',
    '-c',
    `import os, resource, signal, socket, sys, threading, time\n${script}`,
    '{outputDir}',
  ],
  models: ['*.bin'],
  minFreeMb: 1,
})

function giveTo(uid: number, rig: Rig): void {
  if (uid) chownSync(rig.modelsDir, uid, uid)
}

for (const { name, uid, prefix } of identities) {
  hostile(
    `a crowd that makes small files in one folder does not keep the guard of ${name} waiting`,
    async () => {
      const script = `
block = bytes(65536)
for n in range(150):
  if os.fork(): continue
  for m in range(100000):
    fd = os.open(f'{sys.argv[1]}/{n}-{m}', os.O_WRONLY | os.O_CREAT); os.write(fd, block); os.close(fd)
time.sleep(60)`
      await using rig = await trainerRig({ core: { maxDiskMb: 200, ...trains(script) } })
      await using disk = ownDisk(rig, 'ext4', 3000)
      giveTo(uid, rig)
      const stop = disk.watch(200 * MIB)

      const { exitCode } = await rig.run(['core', '--json'], { prefix })
      const { peakBytes, longestMs } = stop()

      assert.is(exitCode, 2)
      assert.ok(
        peakBytes > 180 * MIB && peakBytes < 400 * MIB && longestMs < MOST_MS,
        `${peakBytes} bytes, ${longestMs} ms`,
      )
    },
  )

  for (const [how, hold] of [
    ['a file', "os.open('keep', os.O_CREAT)"],
    ['a socket', "keep.append(socket.socket(socket.AF_UNIX)); keep[-1].bind('keep')"],
  ] as const) {
    hostile(
      `a folder that is deleted and stays because ${how} of it is held is charged to ${name}`,
      async () => {
        const script = `
keep = []
first = sys.argv[1] + '/first'
open(first, 'w').close()
for n in range(40):
  folder = f'{sys.argv[1]}/{n}'; os.mkdir(folder); os.chdir(folder)
  ${hold}
  names = [f'{m}'.zfill(250) for m in range(40000)]
  for it in names: os.link(first, it)
  for it in [*names, 'keep']: os.unlink(it)
  os.chdir('/'); os.rmdir(folder)
time.sleep(60)`
        await using rig = await trainerRig({ core: { maxDiskMb: 40, ...trains(script) } })
        await using disk = ownDisk(rig, 'ext4', 800)
        giveTo(uid, rig)
        const stop = disk.watch(41 * MIB) // what is missing by less is noise

        const { exitCode } = await rig.run(['core', '--json'], { prefix })
        const { peakBytes, longestMs } = stop()

        assert.is(exitCode, 2)
        assert.ok(
          peakBytes > 25 * MIB && peakBytes < 60 * MIB && longestMs < MOST_MS,
          `${peakBytes} bytes, ${longestMs} ms`,
        )
      },
    )
  }

  hostile(`many threads with many descriptors do not make a look of ${name} long`, async () => {
    const script = `
out = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
threading.stack_size(65536)
fd = os.open(out + '/first', os.O_RDWR | os.O_CREAT); os.unlink(out + '/first')
try:
  for n in range(4000): os.dup(fd)
except OSError: pass
for n in range(200): threading.Thread(target=time.sleep, args=(60,)).start()
for n in range(600):
  fd = os.open(out + '/next', os.O_RDWR | os.O_CREAT); os.unlink(out + '/next'); os.write(fd, bytes(2**20)); time.sleep(0.01)`
    await using rig = await trainerRig({ core: { maxDiskMb: 60, ...trains(script) } })
    await using disk = ownDisk(rig, 'ext4', 800)
    giveTo(uid, rig)
    const stop = disk.watch(60 * MIB)

    const { exitCode, events } = await rig.run(['core', '--json'], { prefix })
    const { peakBytes, longestMs } = stop()

    const longestPause = Math.max(0, ...events.map(it => (it.event === 'train.resume' ? it.pausedMs : 0)))
    assert.is(exitCode, 2)
    assert.ok(peakBytes < 92 * MIB && longestMs < MOST_MS, `${peakBytes} bytes, ${longestMs} ms`)
    assert.ok(longestPause < 2 * MOST_MS, `${longestPause} ms`)
  })
}

/** Whoever looks at a process waits until it is through with this; behind others, and last in line, that takes seconds. */
const slow = {
  'changes its mappings':
    'for rights in (1, 3): libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(size), rights)',
  'runs another program': "os.execv('/bin/sleep', ['sleep', '60'])",
}

const becomesSlow = (slowly: string) => `
import ctypes
out = sys.argv[1]; libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
size = 2 ** 29; ready = lambda n: os.path.exists(f'{out}/ready-{n}')
for n in range(4):
  if os.fork(): continue
  at = libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, 0); libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(size), 15) # small pages
  ctypes.memset(at, 1, size); os.sched_setaffinity(0, [0]); open(f'{out}/ready-{n}', 'w')
  while not ready('all'): time.sleep(0.05)
  os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
  while True:
    ${slowly}
while not all(map(ready, range(4))): time.sleep(0.05)
for _ in range(20):
  if not os.fork():
    os.sched_setaffinity(0, [0])
    while True: pass
os.sched_setaffinity(0, [1]); open(f'{out}/ready-all', 'w'); time.sleep(1.5)`

for (const [what, slowly] of Object.entries(slow)) {
  hostile(
    `a process that ${what}, and hardly ever runs, keeps neither the guard nor a signal waiting`,
    async () => {
      const script = `${becomesSlow(slowly)}
for n in range(1000): open(f'{out}/{n}', 'wb').write(bytes(2 ** 20)); time.sleep(0.002)
time.sleep(60)`
      for (const isInterrupted of [false, true]) {
        await using rig = await trainerRig({ core: { maxDiskMb: 100, ...trains(script) } })
        await using disk = ownDisk(rig, 'ext4', 1500)
        const stop = disk.watch(100 * MIB)

        const run = rig.start(['core', '--json'])
        const heardMs = isInterrupted ? await timeToHear(run, join(rig.modelsDir, 'core/work')) : 0
        const { exitCode } = await run.ended
        const { peakBytes, longestMs } = stop()

        assert.is(exitCode, isInterrupted ? 143 : 2)
        assert.ok(peakBytes < 250 * MIB && longestMs < MOST_MS, `${peakBytes} bytes, ${longestMs} ms`)
        assert.ok(heardMs < 3000, `${heardMs} ms`)
      }
    },
  )

  hostile(
    `a stranger that ${what}, and hardly ever runs, does not keep the end of a run waiting`,
    async () => {
      await using rig = await trainerRig({ core: trains('time.sleep(60)') })
      const run = rig.start(['core', '--json'])
      await untilEvent(rig, 'train.start')
      await using box = await sandbox()
      const script = `import os, sys, time${becomesSlow(slowly)}\ntime.sleep(60)`
      const stranger = spawn('python3', ['-c', script, box.dir], { detached: true, stdio: 'ignore' })
      using _ = { [Symbol.dispose]: () => process.kill(-stranger.pid!, 'SIGKILL') }

      const heardMs = await timeToHear(run, box.dir)
      const sinceMs = performance.now()
      const { exitCode } = await run.ended
      const endingMs = performance.now() - sinceMs

      assert.is(exitCode, 143)
      assert.ok(heardMs < 1000 && endingMs < 5000, `heard after ${heardMs} ms, ended ${endingMs} ms later`)
    },
  )
}

/** How long a run takes to say that it is interrupted, once there are slow processes. */
async function timeToHear(run: Started, readyDir: string): Promise<number> {
  await until('it is slow', () => existsSync(join(readyDir, 'ready-all')))
  await delay(500)
  const sinceMs = performance.now()
  run.child.kill('SIGTERM')
  await until('the signal is heard', () => run.output().includes('interrupted by SIGTERM'))
  return performance.now() - sinceMs
}

withFuse(
  'a server of data that answers no more does not keep the run from its quota, or from a signal',
  async () => {
    const script = `
data = os.open('DATA/first', os.O_RDONLY)
out = sys.argv[1]
open(out + '/ready', 'w').close()
while not os.path.exists(out + '/../../silent'): time.sleep(0.05)
for n in range(200):
  with open(f'{out}/{n}', 'wb') as file: file.write(bytes(2**20))
  time.sleep(0.02)
time.sleep(60)`
    await using rig = await trainerRig()
    const data = rig.path('data')
    const image = rig.path('exfat.img')
    writeFileSync(image, '')
    truncateSync(image, 16 * MIB)
    must('mkfs.exfat', image)
    mkdirSync(data)
    const device = must('losetup', '--find', '--show', image).trim()
    must('mount.exfat-fuse', device, data)
    writeFileSync(join(data, 'first'), 'data')
    // The newest: whoever has started it may not have ended yet.
    const server = must('pgrep', '--newest', '--full', `mount.exfat-fuse ${device} `).trim()
    const quotas = JSON.parse(readFileSync(rig.path('quotas.json'), 'utf8'))
    const job = { ...trains(script.replace('DATA', data)), sandbox: 'off' }
    try {
      for (const [maxDiskMb, exitCode] of [
        [60, 2],
        [600, 143],
      ] as const) {
        quotas.jobs.core = { ...job, maxDiskMb }
        writeFileSync(rig.path('quotas.json'), JSON.stringify(quotas))
        const run = rig.start(['core', '--json'])
        await until('it has its data', () => {
          assert.is(run.child.exitCode, null, run.output())
          return existsSync(join(rig.modelsDir, 'core/work/ready'))
        })
        process.kill(Number(server), 'SIGSTOP')
        writeFileSync(join(rig.modelsDir, 'silent'), '')
        if (exitCode === 143) {
          await until('it writes', () => existsSync(join(rig.modelsDir, 'core/work/20')))
          run.child.kill('SIGTERM')
        }
        const ended = await run.ended
        process.kill(Number(server), 'SIGCONT')

        assert.is(ended.exitCode, exitCode)
      }
    } finally {
      process.kill(Number(server), 'SIGCONT')
      for (const argv of [
        ['umount', '--lazy', data],
        ['losetup', '--detach', device],
      ])
        spawnSync(argv[0]!, argv.slice(1))
    }
  },
)

test.run()
