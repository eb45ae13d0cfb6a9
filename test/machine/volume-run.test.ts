import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { trainAndPublish } from '../support/publishing.ts'
import { type FakeTrainer, publishes, survivors, writesThrice } from '../support/rig.ts'
import { sampleUsage } from '../support/sampler.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { createdRig, hasLoopDevices, type VolumeRig } from '../support/volume-rig.ts'

const MIB = 2 ** 20
const QUOTA_MB = 24
const needs = 'needs root and loop devices'
const mounting = skipUnless(test, hasLoopDevices, needs)
const mountingInSweep = skipUnless(inSweep, hasLoopDevices, needs)
const guarantee = useSandbox('core', 'auto') ? 'kernel+sandbox' : 'kernel'

/** Runs a program in the training's output folder, as long as that goes well. */
const running: FakeTrainer = `
const run = (program, ...args) => {
  if (spawnSync(program, args, { cwd: dir, stdio: ['ignore', 1, 1] }).status !== 0) process.exit(1)
}
`

/** A rig whose volume has a published model, to be retrained. */
async function publishedRig(trainer: FakeTrainer): Promise<VolumeRig> {
  const rig = await createdRig({ maxDiskMb: QUOTA_MB, trainer })
  await trainAndPublish(rig.folder, { 'core.onnx': onnxModel() })
  return rig
}

mounting(
  'a training in a volume says that the kernel guarantees its quota, and publishes as anywhere',
  async () => {
    await using rig = await createdRig({ maxDiskMb: QUOTA_MB })

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    const [start] = events.filter(it => it.event === 'job.start')
    assert.is(start!.guarantee, guarantee)
    assert.ok(readFileSync(join(rig.folder, 'core.onnx')).equals(onnxModel()))
  },
)

/** Fills the volume to the last byte with one file, at once, where the kernel bounds it. */
const fills = (name: string): FakeTrainer => `
const { bavail, bsize } = fs.statfsSync(dir)
spawnSync('fallocate', ['-l', String(bavail * bsize - 2 ** 16), dir + '/${name}'])
const fd = fs.openSync(dir + '/${name}', 'a')
try { for (;;) fs.writeSync(fd, Buffer.alloc(4096)) } catch {}`

for (const [what, fillsIt, code, said] of [
  ['checkpoints that may go', fills('1.checkpoint'), 0, undefined],
  ['what no rule names', fills('junk'), 2, /^Model too large for quota: .*junk/],
  [
    'names',
    'for (let n = 0; ; n++) try { fs.writeFileSync(dir + "/name-" + n, "") } catch { break }',
    2,
    /^Too many files for quota: /,
  ],
] as const) {
  mountingInSweep(
    `a training that fills its volume with ${what} in the end: ${code}, and the next one trains`,
    async () => {
      const trainer = `${publishes}\nif (!fs.existsSync('is-full')) {\n${fillsIt}\n}\nfs.writeFileSync('/dev/null', '')`
      await using rig = await createdRig({ maxDiskMb: QUOTA_MB, trainer })

      const { exitCode, events } = await rig.run(['core', '--json'])
      writeFileSync(rig.path('is-full'), '')
      const next = await rig.run(['core', '--retrain', '--json'])

      const reasons = events.flatMap(it =>
        it.event === 'quota.exceeded' || it.event === 'job.fail' ? [it.message] : [],
      )
      assert.is(exitCode, code, reasons.join('\n'))
      if (said) assert.match(reasons[0]!, said)
      assert.is(next.exitCode, 0, next.stdout)
      assert.ok(existsSync(join(rig.folder, 'core.onnx')))
    },
  )
}

for (const [what, fillsIt] of [
  ['bytes', fills('junk')],
  ['names', 'for (let n = 0; ; n++) try { fs.writeFileSync(dir + "/name-" + n, "") } catch { break }'],
] as const) {
  mountingInSweep(
    `a model is published though accept's command has filled the volume with ${what}`,
    async () => {
      const accept = { command: ['node', 'judge.mjs'] }
      await using rig = await createdRig({ maxDiskMb: QUOTA_MB, accept })
      const begin = `import fs from 'node:fs'\nimport { spawnSync } from 'node:child_process'\nconst dir = process.env.RANSOMEYE_OUTPUT_DIR`
      writeFileSync(rig.path('judge.mjs'), `${begin}\n${fillsIt}`)

      const { exitCode, stdout } = await rig.run(['core', '--json'])
      writeFileSync(rig.path('judge.mjs'), '')
      const next = await rig.run(['core', '--retrain', '--json'])

      assert.is(exitCode, 0, stdout)
      assert.is(next.exitCode, 0, next.stdout)
      assert.ok(existsSync(join(rig.folder, 'current/core.onnx')))
    },
  )
}

mountingInSweep('a training while its volume is not mounted warns that the volume will hide it', async () => {
  await using rig = await createdRig({ maxDiskMb: QUOTA_MB })
  await rig.volume('unmount')

  const { events } = await rig.run(['core', '--json'])

  const warnings = events.flatMap(it => (it.event === 'warning' ? [it.message] : []))
  const remedy = `mount it as root: node --import tsx scripts/volume.ts mount core --models-dir ${rig.modelsDir}`
  assert.ok(warnings.some(it => it.startsWith('its volume is not mounted') && it.includes(`; ${remedy}`)))
  assert.is(statSync(dirname(rig.image)).mode & 0o777, 0o711)
})

mountingInSweep(
  'a training in a volume that is larger than its quota warns of that, and how to mend it',
  async () => {
    await using rig = await createdRig({ maxDiskMb: 40 })
    const quotas = readFileSync(rig.path('quotas.json'), 'utf8')
    writeFileSync(rig.path('quotas.json'), quotas.replace('"maxDiskMb":40', '"maxDiskMb":20'))

    const { events } = await rig.run(['core', '--json'])

    const [start] = events.filter(it => it.event === 'job.start')
    assert.match(start!.guarantee, /^watch/)
    const warnings = events.flatMap(it => (it.event === 'warning' ? [it.message] : []))
    assert.is(warnings.length, 1)
    assert.match(
      warnings[0]!,
      /^its volume, of 3\d.* MiB, is larger than its quota of 20 MiB, so the kernel does not/,
    )
    assert.match(warnings[0]!, `remove core --models-dir ${rig.modelsDir}`)
  },
)

mountingInSweep(
  'a training that writes checkpoints for three times its volume survives, pruned oldest first',
  async () => {
    await using rig = await createdRig({ maxDiskMb: 40, trainer: writesThrice(40) })

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    const pruned = events.flatMap(it =>
      it.event === 'storage.prune' ? [Number(/epoch-(\d+)/.exec(it.path)?.[1])] : [],
    )
    assert.ok(pruned.length >= 20)
    assert.equal(
      pruned,
      [...pruned].sort((a, b) => a - b),
    )
  },
)

const floods: [name: string, body: FakeTrainer][] = [
  ['fallocate', `for (let n = 0; ; n++) run('fallocate', '--length', '3M', 'big-' + n)`],
  [
    'FALLOC_FL_KEEP_SIZE',
    `for (let n = 0; ; n++) { fs.writeFileSync(dir + '/big-' + n, ''); run('fallocate', '--keep-size', '--length', '3M', 'big-' + n) }`,
  ],
  ['many small files', `for (let n = 0; ; n++) fs.writeFileSync(dir + '/small-' + n, 'x')`],
  ['many files', `for (let n = 0; ; n++) fs.writeFileSync(dir + '/part-' + n, Buffer.alloc(2 ** 20))`],
  [
    'growth by mmap',
    `run('/usr/bin/python3', '-c', \`import mmap
for n in range(100):
    file = open('map-%d' % n, 'w+b'); file.truncate(3 << 20)
    area = mmap.mmap(file.fileno(), 0)
    for at in range(0, len(area), 4096): area[at] = 1\`)`,
  ],
  [
    'files that are deleted but open',
    `for (let n = 0; ; n++) { const fd = fs.openSync(dir + '/gone', 'w'); fs.unlinkSync(dir + '/gone'); fs.writeSync(fd, Buffer.alloc(2 ** 20)) }`,
  ],
]

// They are tried on a volume by itself too, with a program instead of a run.
for (const [name, body] of floods) {
  const isThere = !body.includes('python3') || existsSync('/usr/bin/python3')
  skipUnless(
    inSweep,
    hasLoopDevices && isThere,
    'needs root, loop devices and Debian’s python3',
  )(
    `a training that fills its volume by ${name} has failed by quota: 0 bytes over, old model as it was`,
    async () => {
      await using rig = await publishedRig(running + body)
      const before = rig.disk()
      const stopSampling = sampleUsage(rig.folder)

      const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])

      const { peakBytes } = await stopSampling()
      assert.is(exitCode, 2)
      const [exceeded] = events.filter(it => it.event === 'quota.exceeded')
      assert.match(exceeded!.message, 'Model too large for quota')
      assert.ok(events.some(it => it.event === 'job.fail' && it.code === 'quota-exceeded'))
      assert.ok(peakBytes <= QUOTA_MB * MIB, `${peakBytes} bytes seen`)
      const { blockBytes, sizeBytes } = rig.disk()
      assert.ok(sizeBytes === before.sizeBytes && blockBytes <= QUOTA_MB * MIB)
      assert.ok(readFileSync(join(rig.folder, 'core.onnx')).equals(onnxModel()))
      assert.equal(survivors(rig), [])
    },
  )
}

mountingInSweep(
  'a training that swallows that its volume is full and exits with 0 has failed by quota',
  async () => {
    const trainer = `try { for (let n = 0; ; n++) fs.writeFileSync(dir + '/part-' + n, Buffer.alloc(2 ** 20)) } catch (error) { console.log('ignored', error.code) }`
    await using rig = await publishedRig(trainer)

    const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])

    assert.is(exitCode, 2)
    assert.ok(events.some(it => it.event === 'train.exit' && it.exitCode === 0))
  },
)

mountingInSweep('after a violation the next training has its volume to itself again', async () => {
  const trainer = `
if (fs.existsSync(process.env.RANSOMEYE_MODEL_DIR + '/enough')) { ${publishes}; process.exit() }
for (let n = 0; ; n++) fs.writeFileSync(dir + '/part-' + n, Buffer.alloc(2 ** 20))`
  await using rig = await createdRig({ maxDiskMb: QUOTA_MB, trainer })
  const first = await rig.run(['core'])
  writeFileSync(join(rig.folder, 'enough'), '')

  const second = await rig.run(['core'])

  assert.is(first.exitCode, 2)
  assert.is(second.exitCode, 0)
})

test.run()
