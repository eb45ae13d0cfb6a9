import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { checkUsage } from '../../lib/storage.ts'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { ownDisk } from '../support/own-disk.ts'
import { publishes, type Rig, survivors, trainerRig, untilEvent, writesThrice } from '../support/rig.ts'
import { sampleUsage } from '../support/sampler.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { hasLoopDevices } from '../support/volume-rig.ts'

const MIB = 2 ** 20
const sandboxed = skipUnless(test, useSandbox('core', 'auto'), 'needs bubblewrap')
const sandboxedInSweep = skipUnless(inSweep, useSandbox('core', 'auto'), 'needs bubblewrap')

const jobDir = (rig: Rig) => rig.path('models', 'core')
const workFiles = (rig: Rig) => readdirSync(rig.path('models', 'core', 'work')).sort()

test('a training that writes checkpoints for three times its quota survives, and is never seen above it', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 20, trainer: writesThrice(20) } })
  // Others who free space beside it would hide what it writes.
  await using _disk = hasLoopDevices ? ownDisk(rig, 'ext4', 400) : undefined
  const run = rig.start(['core', '--json'])
  await until('the folder is there', () => statSync(jobDir(rig), { throwIfNoEntry: false }))
  const stopSampling = sampleUsage(jobDir(rig))

  const { exitCode, events } = await run.ended
  const { peakBytes, samples } = await stopSampling()

  assert.is(exitCode, 0)
  assert.ok(samples > 10 && peakBytes > 10 * MIB, `${samples} samples, ${peakBytes} bytes`)
  assert.ok(peakBytes <= 20 * MIB, `${peakBytes} bytes seen`)
  const pruned = events.flatMap(it =>
    it.event === 'storage.prune' ? [Number(/epoch-(\d+)/.exec(it.path)?.[1])] : [],
  )
  assert.ok(pruned.length >= 10)
  assert.equal(
    pruned,
    [...pruned].sort((a, b) => a - b),
  )
  assert.ok(workFiles(rig).includes('epoch-14.checkpoint'))
  const pauses = events.filter(it => it.event === 'train.freeze' || it.event === 'train.resume')
  assert.ok(
    pauses.length >= 4 &&
      pauses.every((it, index) => it.event === (index % 2 ? 'train.resume' : 'train.freeze')),
  )
  let prunes = 0
  for (const it of events) {
    if (it.event === 'train.freeze') prunes = 0
    if (it.event === 'storage.prune') prunes++
    if (it.event === 'train.resume') assert.is(it.countedOnly, prunes ? undefined : true)
  }
})

inSweep(
  'a training whose one model outgrows the quota is killed: nothing published, usage back, old model as it was',
  async () => {
    const trainer = `
if (!fs.existsSync(dir + '/second')) { fs.writeFileSync(dir + '/second', ''); ${publishes}; process.exit() }
for (let n = 0; ; n++) { fs.writeFileSync(dir + '/part-' + n, Buffer.alloc(2 ** 20)); await sleep(2) }`
    await using rig = await trainerRig({ core: { maxDiskMb: 30, trainer } })
    await rig.run(['core'])

    const { exitCode, events } = await rig.run(['--retrain', '--json'])

    assert.is(exitCode, 2)
    const [exceeded] = events.filter(it => it.event === 'quota.exceeded')
    assert.match(exceeded!.message, 'Model too large for quota')
    assert.ok((await checkUsage(jobDir(rig))) <= 30 * MIB)
    assert.equal(readFileSync(rig.path('models', 'core', 'core.onnx')), onnxModel())
    assert.not(
      events.some(it => it.event === 'model.publish' || (it.event === 'train.start' && it.job === 'dpi')),
    )
    assert.equal(survivors(rig), [])
    const freezes = events.filter(it => it.event === 'train.freeze').length
    assert.ok(freezes >= 1 && freezes < 40, `${freezes} freezes`)
  },
)

test('one growing file stops at the quota to the byte; a training that swallows that has failed by quota', async () => {
  const trainer = `
const fd = fs.openSync(dir + '/big', 'w')
try { for (;;) fs.writeSync(fd, Buffer.alloc(2 ** 20)) } catch (error) { console.log('ignored', error.code) }`
  await using rig = await trainerRig({ core: { maxDiskMb: 30, trainer } })
  const run = rig.start(['core', '--json'])
  await until('the folder is there', () => statSync(jobDir(rig), { throwIfNoEntry: false }))
  const stopSampling = sampleUsage(jobDir(rig))

  const { exitCode, events } = await run.ended
  const { peakBytes } = await stopSampling()

  assert.is(exitCode, 2)
  assert.ok(peakBytes <= 30 * MIB, `${peakBytes} bytes seen`)
  assert.ok(events.some(it => it.event === 'job.fail' && it.code === 'quota-exceeded'))
})

inSweep(
  'the newest complete checkpoint, under both of its names, and a file that is being written are not pruned while the training runs',
  async () => {
    const trainer = `
const write = (file, mib) => fs.writeFileSync(file, Buffer.alloc(mib * 2 ** 20))
write(dir + '/epoch-1.checkpoint', 3); await sleep(30)
write(dir + '/epoch-2.checkpoint', 12); await sleep(30)
fs.linkSync(dir + '/epoch-2.checkpoint', dir + '/best.checkpoint')
const fd = fs.openSync(dir + '/epoch-3.checkpoint', 'w')
write(fd, 22); await sleep(1500)
console.log('kept', fs.existsSync(dir + '/epoch-2.checkpoint'), fs.existsSync(dir + '/epoch-3.checkpoint'))
fs.closeSync(fd); ${publishes}`
    await using rig = await trainerRig({ core: { maxDiskMb: 40, trainer } })

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    assert.ok(events.some(it => it.event === 'train.output' && it.line === 'kept true true'))
    const pruned = events.flatMap(it => (it.event === 'storage.prune' ? [it.path] : []))
    assert.equal(pruned, [rig.path('models', 'core', 'work', 'epoch-1.checkpoint')])
  },
)

test('files that are deleted but still open are charged, and a training that hides behind them is killed', async () => {
  const trainer = `
for (let n = 0; n < 40; n++) {
  const fd = fs.openSync(dir + '/hidden-' + n, 'w')
  fs.unlinkSync(dir + '/hidden-' + n)
  fs.writeSync(fd, Buffer.alloc(2 ** 20)); await sleep(10)
}
await sleep(60_000)`
  await using rig = await trainerRig({ core: { maxDiskMb: 30, trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 2)
  const [exceeded] = events.filter(it => it.event === 'quota.exceeded')
  assert.ok(exceeded!.usedBytes > 30 * MIB && exceeded!.usedBytes < 42 * MIB, `${exceeded!.usedBytes} bytes`)
  assert.match(
    exceeded!.message,
    /; [\d.]+ MiB of it are in deleted files that it holds: \S+\/hidden-\d+ \(1 MiB, held by node, pid \d+\), /,
  )
})

sandboxed(
  'files in /tmp, /var/tmp, TMPDIR, HOME and a cache are charged; the temporary ones are gone afterwards',
  async () => {
    const trainer = `
const homes = ['/tmp', '/var/tmp', process.env.TMPDIR, process.env.XDG_CACHE_HOME, process.env.HOME]
for (const home of homes) {
  fs.mkdirSync(home, { recursive: true })
  fs.writeFileSync(home + '/' + process.env.MARK + Math.random(), Buffer.alloc(2 ** 20))
}
await sleep(1200); ${publishes}`
    const mark = `ransomeye-temporary-${process.pid}-`
    await using rig = await trainerRig({ core: { trainer, env: { MARK: mark } } })

    const run = rig.start(['core', '--json'])
    await untilEvent(rig, 'train.start')
    await until('all five are charged', async () => (await checkUsage(jobDir(rig))) >= 5 * MIB)
    const { exitCode } = await run.ended

    assert.is(exitCode, 0)
    const usedBytes = await checkUsage(jobDir(rig))
    assert.ok(usedBytes > 2 * MIB && usedBytes < 3 * MIB, `${usedBytes} bytes`)
    const strays = [...readdirSync('/tmp'), ...readdirSync('/var/tmp')].filter(name => name.includes(mark))
    assert.equal(strays, [])
  },
)

sandboxedInSweep('a training that fills its quota in /dev/shm is told what of it was there', async () => {
  const trainer = `
for (let n = 0; n < 30; n++) { fs.writeFileSync('/dev/shm/torch_' + process.pid + '_' + n, Buffer.alloc(2 ** 20)); await sleep(20) }
await sleep(60_000)`
  await using rig = await trainerRig({ core: { maxDiskMb: 20, trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 2)
  const [exceeded] = events.filter(it => it.event === 'quota.exceeded')
  assert.match(
    exceeded!.message,
    /left are \d+ files tmp\/torch_\*_\* \([\d.]+ MiB, temporary, in \/tmp, \/var\/tmp or \/dev\/shm/,
  )
  assert.not.match(exceeded!.message, '"prune"')
})

inSweep(
  'when pruning frees nothing the training is frozen a bounded number of times, then goes on or is killed',
  async () => {
    const trainer = `
fs.writeFileSync(dir + '/ballast', Buffer.alloc(28 * 2 ** 20)); await sleep(2500); ${publishes}`
    await using rig = await trainerRig({ core: { maxDiskMb: 30, trainer } })
    // Others who write to the same disk would cause more.
    await using _disk = hasLoopDevices ? ownDisk(rig, 'ext4', 400) : undefined

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    const freezes = events.filter(it => it.event === 'train.freeze').length
    assert.ok(freezes >= 1 && freezes <= 3, `${freezes} freezes`)
  },
)

inSweep('one long write during a freeze is waited for, and cut when it passes the quota', async () => {
  const trainer = `
fs.writeFileSync(dir + '/ballast', Buffer.alloc(20 * 2 ** 20)); await sleep(300)
const parts = Array.from({ length: 512 }, () => Buffer.alloc(2 ** 20))
for (let n = 0; n < 10; n++) { const fd = fs.openSync(dir + '/long' + n, 'w'); try { fs.writevSync(fd, parts) } catch {} }
await sleep(60_000)`
  await using rig = await trainerRig({ core: { maxDiskMb: 40, trainer } })

  const { exitCode } = await rig.run(['core', '--json'])

  assert.is(exitCode, 2)
  assert.equal(survivors(rig), [])
  assert.ok((await checkUsage(jobDir(rig))) <= 40 * MIB)
})

inSweep('one long write into a file that has its size already takes nothing more than that', async () => {
  const trainer = `
const fd = fs.openSync(dir + '/data', 'w')
fs.ftruncateSync(fd, 160 * 2 ** 20); await sleep(2000)
fs.writeSync(fd, Buffer.alloc(160 * 2 ** 20, 1)); await sleep(1000)
${publishes}`
  await using rig = await trainerRig({ core: { maxDiskMb: 200, trainer } })

  const { exitCode, events, stdout } = await rig.run(['core', '--json'])

  assert.is(exitCode, 0, stdout)
  assert.ok(events.some(it => it.event === 'train.freeze'))
})

inSweep('a folder that matches a prune glob goes as one, the oldest first', async () => {
  const trainer = `
for (let n = 1; n <= 8; n++) {
  const step = dir + '/checkpoint-' + n * 500
  fs.mkdirSync(step)
  for (const part of ['weights', 'optimizer']) fs.writeFileSync(step + '/' + part, Buffer.alloc(2 * 2 ** 20))
  await sleep(150)
}
${publishes}`
  await using rig = await trainerRig({ core: { maxDiskMb: 20, prune: ['checkpoint-*'], trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 0)
  const pruned = events.flatMap(it => (it.event === 'storage.prune' ? [it.path.split('/').at(-1)] : []))
  assert.ok(pruned.length >= 3)
  assert.equal(
    pruned,
    Array.from({ length: pruned.length }, (_, index) => `checkpoint-${(index + 1) * 500}`),
  )
  const left = readdirSync(rig.path('models', 'core', 'work', 'checkpoint-4000'))
  assert.equal(left.sort(), ['optimizer', 'weights'])
})

inSweep('after a violation the checkpoints that fit are left, and room for the next training', async () => {
  const trainer = `
if (fs.existsSync(dir + '/ckpt/epoch-1.checkpoint')) { ${publishes}; process.exit() }
const folders = ['/', '/ckpt/', '/parts/deep/'].map(folder => dir + folder)
for (const folder of folders) fs.mkdirSync(folder, { recursive: true })
fs.writeFileSync(dir + '/ckpt/epoch-1.checkpoint', Buffer.alloc(2 ** 20))
fs.linkSync(dir + '/ckpt/epoch-1.checkpoint', dir + '/best.pt')
for (let n = 0; ; n++) { fs.writeFileSync(folders[n % 3] + 'part-' + n, Buffer.alloc(2 ** 20)); await sleep(5) }`
  await using rig = await trainerRig({ core: { maxDiskMb: 20, trainer } })

  const first = await rig.run(['core'])
  const left = await checkUsage(jobDir(rig))
  const second = await rig.run(['core'])

  assert.equal([first.exitCode, second.exitCode], [2, 0])
  assert.ok(left > MIB && left < 2 * MIB)
})

inSweep(
  'published models stay byte-identical whatever the training does in the sandbox to them',
  async () => {
    const trainer = `
if (!fs.existsSync(dir + '/second')) { fs.writeFileSync(dir + '/second', ''); ${publishes}; process.exit() }
const published = process.env.RANSOMEYE_MODEL_DIR + '/core.onnx'
for (const harm of [() => fs.writeFileSync(published, 'x'), () => fs.unlinkSync(published), () => fs.renameSync(dir + '/second', published)])
  try { harm(); console.log('harmed') } catch (error) { console.log(error.code) }
process.exit(1)`
    await using rig = await trainerRig({ core: { trainer } })
    await rig.run(['core'])

    const { exitCode } = await rig.run(['core', '--retrain'])

    assert.is(exitCode, 1)
    if (useSandbox('core', 'auto'))
      assert.equal(readFileSync(rig.path('models', 'core', 'core.onnx')), onnxModel())
  },
)

inSweep(
  'every training has the lowest priority, also when the guard of one before has raised ours',
  async () => {
    const trainer = `console.log('nice', (await import('node:os')).getPriority()); ${publishes}`
    await using rig = await trainerRig({ core: { trainer }, dpi: { trainer } })

    const { events } = await rig.run(['core', 'dpi', '--json'])

    const lines = events.flatMap(it => (it.event === 'train.output' ? [it.line] : []))
    assert.equal(lines, ['nice 19', 'nice 19'])
  },
)

inSweep(
  'a training that saves in its grace keeps it, also where checkpoints have to make room for that',
  async () => {
    const trainer = `
process.on('SIGTERM', async () => {
  for (let n = 0; n < 480; n++) { fs.appendFileSync(dir + '/saved.bin', Buffer.alloc(2 ** 15, n)); await sleep(3) }
  fs.writeFileSync(dir + '/whole', '')
  process.exit(0)
})
for (let n = 1; n <= 3; n++) fs.writeFileSync(dir + '/' + n + '.checkpoint', Buffer.alloc(5 * 2 ** 20, n))
await sleep(60_000)`
    await using rig = await trainerRig({ core: { maxDiskMb: 25, trainer } })
    const run = rig.start(['core', '--json'])
    await until('it trains', () => existsSync(rig.path('models/core/work/3.checkpoint')))

    run.child.kill('SIGTERM')
    const { exitCode, events } = await run.ended

    assert.is(exitCode, 143)
    assert.ok(events.some(it => it.event === 'train.freeze'))
    assert.ok(existsSync(rig.path('models/core/work/whole')), JSON.stringify(events.slice(-3)))
  },
)

/** On SIGTERM it saves a checkpoint of 1 MiB, and writes 19 more by one call, which nobody can stop half way. */
const burstsInItsGrace = `
const burst = Buffer.alloc(19 * 2 ** 20, 1)
process.on('SIGTERM', () => {
  fs.writeFileSync(dir + '/2.checkpoint', Buffer.alloc(2 ** 20, 2))
  fs.writeFileSync(dir + '/part-2', burst)
  process.exit(1)
})
fs.writeFileSync(dir + '/part-1', Buffer.alloc(2 ** 21, 1))
fs.writeFileSync(dir + '/1.checkpoint', Buffer.alloc(2 ** 20, 1))
await sleep(60_000)`

for (const [how, timeoutMinutes, code, here] of [
  ['is interrupted', undefined, 'sigterm', test],
  ['has timed out', 0.2, 'training-failed', inSweep],
] as const) {
  here(`what a training that ${how} writes above its quota in its grace goes, but for its save`, async () => {
    const timeout = timeoutMinutes === undefined ? {} : { timeoutMinutes }
    await using rig = await trainerRig({ core: { maxDiskMb: 20, trainer: burstsInItsGrace, ...timeout } })
    const run = rig.start(['core', '--json'])
    await until('it trains', () => existsSync(rig.path('models/core/work/1.checkpoint')))

    if (timeoutMinutes === undefined) run.child.kill('SIGTERM')
    const { exitCode, events } = await run.ended

    assert.is(exitCode, timeoutMinutes === undefined ? 143 : 1)
    assert.equal(
      events.flatMap(it => (it.event === 'job.fail' ? it.code : [])),
      [code],
    )
    const [exceeded, ...more] = events.filter(it => it.event === 'quota.exceeded')
    assert.ok(exceeded && exceeded.usedBytes > exceeded.limitBytes && !more.length, JSON.stringify(events))
    assert.ok((await checkUsage(jobDir(rig))) <= 20 * MIB)
    assert.not(workFiles(rig).some(it => it.startsWith('part-')))
    assert.is(statSync(rig.path('models/core/work/2.checkpoint')).size, 2 ** 20)
  })
}

for (const [what, savedMib, left] of [
  ['fits beside fewer checkpoints makes them go, the oldest first', 12, ['3.checkpoint', 'saved.bin']],
  ['fits costs nothing', 4, ['1.checkpoint', '2.checkpoint', '3.checkpoint', 'saved.bin']],
] as const) {
  inSweep(`a save in the grace that no rule names and that ${what}`, async () => {
    const trainer = `
process.on('SIGTERM', () => {
  fs.writeFileSync(dir + '/saved.bin', Buffer.alloc(${savedMib} * 2 ** 20, 9))
  process.exit(0)
})
for (let n = 1; n <= 3; n++) fs.writeFileSync(dir + '/' + n + '.checkpoint', Buffer.alloc(2 ** 22, n))
fs.writeFileSync(dir + '/ready', '')
await sleep(60_000)`
    await using rig = await trainerRig({ core: { maxDiskMb: 20, trainer } })
    const run = rig.start(['core', '--json'])
    await until('it trains', () => existsSync(rig.path('models/core/work/ready')))

    run.child.kill('SIGTERM')
    const { exitCode, events } = await run.ended

    assert.is(exitCode, 143)
    assert.ok((await checkUsage(jobDir(rig))) <= 20 * MIB)
    const isSaved = (it: string) => /checkpoint$|^saved/.test(it)
    assert.equal(workFiles(rig).filter(isSaved), left, JSON.stringify(events.slice(-6)))
    assert.is(statSync(rig.path('models/core/work/saved.bin')).size, savedMib * MIB)
  })
}

for (const [what, interrupts, code] of [
  ['', false, 75],
  [', and that is interrupted before it has seen that', true, 143],
] as const) {
  inSweep(`a run that has lost its lock${what} deletes nothing of what its training wrote`, async () => {
    await using rig = await trainerRig({ core: { maxDiskMb: 20, trainer: burstsInItsGrace } })
    const run = rig.start(['core', '--json'])
    await until('it trains', () => existsSync(rig.path('models/core/work/1.checkpoint')))

    writeFileSync(rig.path('models/.trainer/lock'), '4711\nhost n2\nboot another\n')
    if (interrupts) run.child.kill('SIGTERM')
    const { exitCode, events } = await run.ended

    assert.is(exitCode, code)
    assert.ok((await checkUsage(jobDir(rig))) > 20 * MIB, JSON.stringify(events.slice(-6)))
    const pruned = events.flatMap(it => (it.event === 'storage.prune' ? it.rule : []))
    assert.not(pruned.includes('work/**'))
  })
}

test('checkpoints that a training has open when it passes its quota go before anything else is done', async () => {
  const trainer = `
const files = [1, 2, 3].map(n => fs.openSync(dir + '/epoch-' + n + '.checkpoint', 'w'))
for (let n = 0; n < 60; n++) for (const file of files) fs.writeSync(file, Buffer.alloc(2 ** 18, n))`
  await using rig = await trainerRig({ core: { maxDiskMb: 30, trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  const kinds = events.map(it => it.event)
  const [exceeded] = events.flatMap(it => (it.event === 'quota.exceeded' ? [it] : []))
  assert.is(exitCode, 2)
  assert.match(exceeded!.message, /left are 3 files \S*\.checkpoint \([\d.]+ MiB, in use\)/)
  assert.ok(kinds.indexOf('storage.prune') < kinds.indexOf('train.exit'), kinds.join())
  assert.ok((await checkUsage(rig.path('models/core'))) <= 30 * MIB)
})

test.run()
