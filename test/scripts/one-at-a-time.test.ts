import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { readRuns } from '../../lib/reports/history.ts'
import { isStopped, trainingProcesses } from '../../lib/system/processes.ts'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { abuseRig } from '../support/abuse.ts'
import { isSweep } from '../support/places.ts'
import {
  type FakeTrainer,
  publishes,
  type Rig,
  type Started,
  survivors,
  trainerRig,
  untilEvent,
} from '../support/rig.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, sampled, test } from '../support/test.ts'

const asRoot = skipUnless(test, process.getuid?.() === 0, 'needs root')
const canSandbox = useSandbox('core', 'auto')
const sandboxed = skipUnless(test, canSandbox, 'needs bubblewrap')

/** Notes its start and end with the run it belongs to, so that two at once show; works for as long as told. */
const noted = (workMs: number): FakeTrainer => `
fs.appendFileSync(dir + '/notes', 'start\\n')
await sleep(${workMs})
${publishes}
fs.appendFileSync(dir + '/notes', 'end\\n')`

const STARTERS = isSweep ? 20 : 5

/** Wait until the training has begun to work, or fail with what its run says. */
function untilNoted(rig: Rig, { child, output }: Started): Promise<unknown> {
  return until('the training runs', () => {
    if (child.exitCode !== null) throw new Error(`the run has ended: ${output()}`)
    return existsSync(rig.path('models', 'core', 'work', 'notes'))
  })
}

sampled(
  'of many starters at once exactly one runs; the others exit with 75, name it, and touch nothing',
  async () => {
    await using rig = await trainerRig({ core: { trainer: noted(500) }, dpi: {}, agent: {} })
    const starters = Array.from({ length: STARTERS }, () => rig.start(['core', '--retrain', '--json']))

    const ended = await Promise.all(starters.map(({ ended }) => ended))

    const winners = ended.filter(({ exitCode }) => exitCode === 0)
    const losers = ended.filter(({ exitCode }) => exitCode === 75)
    assert.is(winners.length + losers.length, STARTERS)
    assert.ok(winners.length >= 1)
    // One that starts when an earlier one has ended may run too; at no time did two.
    const notes = readFileSync(rig.path('models', 'core', 'work', 'notes'), 'utf8')
    assert.is(notes, 'start\nend\n'.repeat(winners.length))
    const pids = new Set(starters.map(({ pid }) => pid))
    for (const { stderr, stdout } of losers) {
      const [, named] = /pid (\d+)/.exec(stderr) ?? []
      assert.ok(pids.has(Number(named)), stderr)
      assert.is(stdout, '')
    }
    assert.is(rig.events().filter(it => it.event === 'run.start').length, winners.length)
  },
)

sandboxed(
  'kill -9 of the orchestrator ends its training within a second; the next start works without help',
  async () => {
    await using rig = await trainerRig({ core: { trainer: noted(60_000) } })
    const first = rig.start(['core'])
    await untilNoted(rig, first)

    first.child.kill('SIGKILL')

    await until('nothing is left', () => survivors(rig).length === 0, 1000)
    const second = rig.start(['core', '--json'])
    await until('the next training runs', () => /train\.start/.test(second.output()))
    second.child.kill('SIGTERM')
    assert.is((await second.ended).exitCode, 143)
  },
)

inSweep(
  'kill -9 of the orchestrator without a sandbox: the next start ends what is left and never overlaps it',
  async () => {
    const trainer = `spawn('setsid', ['sh', '-c', 'sleep 300; : ' + dir], { stdio: 'ignore', detached: true }).unref()\n${noted(1000)}`
    await using rig = await trainerRig({ core: { trainer, sandbox: 'off' } })
    const first = rig.start(['core'])
    await untilNoted(rig, first)
    first.child.kill('SIGKILL')
    await first.ended

    const { exitCode } = await rig.run(['core'])

    assert.is(exitCode, 0)
    assert.is(readFileSync(rig.path('models', 'core', 'work', 'notes'), 'utf8'), 'start\nstart\nend\n')
    assert.equal(survivors(rig), [])
  },
)

for (const sandbox of ['auto', 'off'] as const) {
  const testHere = skipUnless(inSweep, sandbox === 'off' || canSandbox, 'needs bubblewrap')

  testHere(
    `kill -9 while the job is frozen (sandbox ${sandbox}): nothing stays stopped or locked`,
    async () => {
      await using rig = await trainerRig({ core: { trainer: noted(60_000), sandbox } })
      const first = rig.start(['core'])
      const { pid } = await untilEvent(rig, 'train.start')
      await untilNoted(rig, first)
      for (const member of survivors(rig).filter(it => it !== first.pid)) process.kill(member, 'SIGSTOP')
      await until('it is stopped', () => isStopped(pid))

      first.child.kill('SIGKILL')
      await first.ended
      const second = rig.start(['core'])

      await until('the next training runs', () => /core: training, pid/.test(second.output()))
      second.child.kill('SIGTERM')
      await second.ended
      assert.equal(survivors(rig), [])
    },
  )

  testHere(
    `a training that closes every descriptor (sandbox ${sandbox}) still never overlaps the next`,
    async () => {
      const closing = `for (let fd = 3; fd < 256; fd++) try { if (fs.fstatSync(fd).isFile()) fs.closeSync(fd) } catch {}\n${noted(1500)}`
      await using rig = await trainerRig({ core: { trainer: closing, sandbox } })
      const first = rig.start(['core'])
      await untilNoted(rig, first)
      first.child.kill('SIGKILL')
      await first.ended

      const second = await rig.run(['core'])

      assert.is(second.exitCode, 0, second.stdout + second.stderr)
      assert.is(readFileSync(rig.path('models', 'core', 'work', 'notes'), 'utf8'), 'start\nstart\nend\n')
      assert.equal(survivors(rig), [])
    },
  )

  skipUnless(
    inSweep,
    sandbox === 'off' || canSandbox,
    'needs bubblewrap',
  )(
    `children by setsid, double fork and a cleared environment (sandbox ${sandbox}) end with the job`,
    async () => {
      const trainer = `
const escape = (...argv) => spawn(argv[0], argv.slice(1), { stdio: 'ignore', detached: true }).unref()
escape('setsid', 'sh', '-c', 'sleep 300; : ' + dir)
escape('sh', '-c', '(sleep 300; : ' + dir + ') & exit 0')
escape('env', '-i', '/bin/sh', '-c', 'sleep 300; : ' + dir)
await sleep(1000); ${publishes}` // to be seen meanwhile
      await using rig = await trainerRig({ core: { trainer, sandbox } })

      const { exitCode } = await rig.run(['core'])

      assert.is(exitCode, 0)
      assert.equal(survivors(rig), [])
    },
  )
}

for (const [signal, exitCode, how, shared] of [
  ['SIGTERM', 143, 143, test],
  ['SIGINT', 130, 130, inSweep],
  ['SIGHUP', 129, 'SIGHUP', inSweep],
] as const) {
  shared(
    `${signal} ends the training with SIGTERM and the run with ${exitCode}; the lock is free, nothing is published`,
    async () => {
      const trainer = `process.on('SIGTERM', () => { fs.writeFileSync(dir + '/saved', ''); process.exit(0) })\n${noted(60_000)}`
      await using rig = await trainerRig({ core: { trainer } })
      const run = rig.start(['--json'])
      await untilNoted(rig, run)

      run.child.kill(signal)
      const ended = await run.ended

      assert.is(ended.exitCode ?? ended.signal, how)
      assert.ok(existsSync(rig.path('models', 'core', 'work', 'saved')))
      assert.not(existsSync(rig.path('models', 'core', 'core.onnx')))
      const last = rig.events().at(-1)
      assert.is(last?.event === 'run.done' && last.exitCode, exitCode)
      assert.is(readRuns(join(rig.modelsDir, '.trainer'), 1).runs[0]?.jobs[0]?.outcome, 'interrupted')
      assert.not(ended.events.some(it => it.event === 'train.start' && it.job !== 'core'))
      const next = rig.start(['core', '--json'])
      await until('the lock is free', () => /train\.start/.test(next.output()))
      next.child.kill('SIGKILL')
      await next.ended
    },
  )
}

inSweep('Ctrl-Z stops neither the run nor its training, and says so', async () => {
  await using rig = await trainerRig({ core: { trainer: noted(1500) } })
  const run = rig.start(['core', '--json'])
  await untilNoted(rig, run)

  run.child.kill('SIGTSTP')
  const { exitCode, events } = await run.ended

  assert.is(exitCode, 0)
  assert.ok(events.some(it => it.event === 'warning' && it.message.includes('Ctrl-Z')))
})

inSweep("a folder that takes the name of the job's while it is trained is not touched", async () => {
  await using rig = await trainerRig({ core: { trainer: noted(1500) } })
  const run = rig.start(['core', '--json'])
  await untilNoted(rig, run)
  const others = ['work/tmp/precious', 'manifest.json.next']
  mkdirSync(rig.path('others/work/tmp'), { recursive: true })
  for (const name of others) writeFileSync(rig.path('others', name), 'x')

  renameSync(rig.path('models/core'), rig.path('models/moved'))
  symlinkSync('../others', rig.path('models/core'))
  const { exitCode } = await run.ended

  assert.is(exitCode, 3)
  for (const name of others) assert.ok(existsSync(rig.path('others', name)), name)
})

asRoot(
  'trainingProcesses() leaves out those of a container in which the same path leads to another folder',
  async () => {
    await using box = await sandbox({ 'work/tmp/.keep': 0 })
    const env = { ...process.env, RANSOMEYE_OUTPUT_DIR: box.path('work') }
    const inside = `mount -t tmpfs none ${box.dir} && mkdir ${box.path('work')} && touch ${box.path('work/up')}`
    const options = { env, stdio: 'ignore' } as const
    const container = spawn('unshare', ['-m', 'sh', '-c', `${inside}; exec sleep 60`], options)
    const ours = spawn('sleep', ['60'], options)
    await until('the container is up', () => existsSync(`/proc/${container.pid}/root${box.path('work/up')}`))

    assert.equal(trainingProcesses(box.path('work')), [ours.pid])

    for (const child of [container, ours]) child.kill('SIGKILL')
  },
)

inSweep(
  'a training that is interrupted while it is being set up does not begin, or ends at once',
  async () => {
    const trainer = `await sleep(3000); fs.writeFileSync(dir + '/done', '')`
    await using rig = await trainerRig({ core: { trainer } })
    for (const afterMs of isSweep ? [0, 20, 40, 60, 80, 100, 130, 160, 200, 250, 300] : [0, 60, 150]) {
      const run = rig.start(['core', '--json'])
      await until('the job starts', () => run.output().includes('"job.start"'))
      await delay(afterMs)
      run.child.kill('SIGINT')

      const { exitCode } = await run.ended

      assert.is(exitCode, 130)
      assert.not(existsSync(rig.path('models/core/work/done')), `${afterMs} ms`)
    }
  },
)

inSweep('a training that ignores SIGTERM is killed after its grace', async () => {
  const trainer = `process.on('SIGTERM', () => {})\n${noted(60_000)}`
  await using rig = await trainerRig({ core: { trainer, graceSeconds: 2 } })
  const run = rig.start(['core', '--json'])
  await untilNoted(rig, run)
  const signalledMs = performance.now()

  run.child.kill('SIGTERM')
  await delay(500)
  run.child.kill('SIGTERM') // an impatient second one changes nothing
  const { exitCode, events } = await run.ended

  assert.is(exitCode, 143)
  const tookMs = performance.now() - signalledMs
  assert.ok(tookMs > 1_900 && tookMs < 9_000, `${tookMs} ms`)
  assert.ok(
    events.some(it => it.event === 'warning' && it.message.endsWith('is being ended, with 2 s to save')),
  )
  assert.equal(survivors(rig), [])
})

inSweep('a training that no signal ends keeps neither its run nor an interrupted start waiting', async () => {
  // Reads from memory by one call, between which the kernel looks for no signal; see io_submit(2).
  const attack = `
mf = call((319, 279), ctypes.c_char_p(b'm'), 0); os.ftruncate(mf, 40 << 20); one = ctypes.create_string_buffer(1 << 20)
started = time.process_time(); [os.preadv(mf, [one], 0) for _ in range(500)]; took = (time.process_time() - started) / 500
count = 60_000; size = min(40, max(1, round(18 / count / took))) # for 18 s
class Piece(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
class Block(ctypes.Structure): _fields_ = [('data', ctypes.c_uint64), ('key', ctypes.c_uint32), ('flags', ctypes.c_uint32),
  ('code', ctypes.c_uint16), ('priority', ctypes.c_int16), ('fd', ctypes.c_uint32), ('buffer', ctypes.c_uint64),
  ('bytes', ctypes.c_uint64), ('offset', ctypes.c_int64), ('more', ctypes.c_uint64), ('flags2', ctypes.c_uint32), ('event', ctypes.c_uint32)]
pieces = (Piece * size)(*[Piece(ctypes.addressof(one), 1 << 20)] * size)
block = Block(code=7, fd=mf, buffer=ctypes.addressof(pieces), bytes=size) # IOCB_CMD_PREADV
blocks = (ctypes.c_void_p * count)(*[ctypes.addressof(block)] * count); context = ctypes.c_uint64(0)
call((206, 0), count, ctypes.byref(context)); open(out + '/notes', 'w').close()
call((209, 2), context.value, count, blocks)`
  await using rig = await abuseRig(0, { sandbox: 'off', graceSeconds: 1, maxDiskMb: 60 })
  const run = rig.begin(attack)
  await untilNoted(rig, run)
  await delay(500)

  run.child.kill('SIGTERM')
  const first = await run.ended
  const next = rig.begin(attack)
  await delay(1500)
  const isWaiting = next.child.exitCode === null
  const interruptedMs = performance.now()
  next.child.kill('SIGTERM')
  const second = await next.ended
  const tookMs = performance.now() - interruptedMs

  assert.is(first.exitCode, 143)
  assert.ok(
    first.events.some(
      it => it.event === 'warning' && /cannot be killed: stuck in a system call/.test(it.message),
    ),
  )
  assert.ok(isWaiting, 'the lock is held for as long as it is there')
  assert.is(second.exitCode, 143)
  assert.ok(tookMs < 2000, `${tookMs} ms`)
  await until('the training has ended', () => survivors(rig).length === 0, 300_000)
})

test('a training that takes longer than its timeoutMinutes is ended, and the queue stops', async () => {
  await using rig = await trainerRig({ core: { trainer: noted(60_000), timeoutMinutes: 0.01 } })

  const { exitCode, events } = await rig.run(['--json'])

  assert.is(exitCode, 1)
  assert.ok(events.some(it => it.event === 'job.fail' && /timed out after 0\.01 min/.test(it.message)))
  assert.not(events.some(it => it.event === 'train.start' && it.job === 'dpi'))
})

test.run()
