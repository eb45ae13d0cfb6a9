import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import { inspectOnnx } from '../../lib/models/onnx.ts'
import { checkUsage } from '../../lib/storage.ts'
import { isEnded } from '../../lib/system/processes.ts'
import { MIB } from '../../lib/text.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { type Ended, type Rig, trainerRig } from '../support/rig.ts'
import { sampleUsage } from '../support/sampler.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

/** A model of 12 MiB and its external data, under the same name each time. */
const trainer = `
fs.copyFileSync('large.onnx', dir + '/core.onnx')
fs.writeFileSync(dir + '/w.bin', process.hrtime.bigint().toString().padEnd(64))
if (fs.existsSync('more')) fs.writeFileSync(dir + '/1.checkpoint', Buffer.alloc(4 * 2 ** 20))`

async function trainedOnce(maxDiskMb: number): Promise<Rig> {
  const rig = await trainerRig({ core: { maxDiskMb, trainer } })
  const external = [{ location: 'w.bin', length: 8 }]
  writeFileSync(rig.path('large.onnx'), onnxModel({ producer: 'x'.repeat(12 * MIB), external }))
  const { exitCode, stdout } = await rig.run(['core', '--json'])
  assert.is(exitCode, 0, stdout)
  return rig
}

inSweep('a model that is written anew beside itself fits into the quota, or is refused', async () => {
  await using rig = await trainedOnce(30)
  const before = readFileSync(rig.path('models/core/current/w.bin'))

  const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])

  assert.is(exitCode, 2)
  const [exceeded] = events.flatMap(it => (it.event === 'quota.exceeded' ? [it] : []))
  assert.match(
    exceeded?.message ?? '',
    /written anew beside itself, because its external data has the name of last/,
  )
  assert.ok(exceeded!.usedBytes > 36 * MIB && exceeded!.limitBytes === 30 * MIB)
  assert.equal(readFileSync(rig.path('models/core/current/w.bin')), before)
  assert.ok((await checkUsage(rig.path('models/core'))) < 14 * MIB)
})

inSweep('checkpoints make room for a model that is written anew beside itself', async () => {
  await using rig = await trainedOnce(40)
  writeFileSync(rig.path('more'), '')
  const stop = sampleUsage(rig.path('models/core'))

  const { exitCode, events, stdout } = await rig.run(['core', '--retrain', '--json'])
  const { peakBytes } = await stop()

  assert.is(exitCode, 0, stdout)
  assert.ok(peakBytes > 36 * MIB && peakBytes <= 40 * MIB, `${peakBytes} bytes`)
  assert.equal(
    events.flatMap(it => (it.event === 'storage.prune' ? [it.rule] : [])),
    ['*.checkpoint'],
  )
})

/** Trains models that take long to read, and as the last thing writes more than there is room for, while nobody looks. */
async function trainSlowModels(rig: Rig): Promise<Ended> {
  const run = rig.start(['core', '--json'])
  await until('it has its models', () => existsSync(rig.path('ready')))
  process.kill(run.pid, 'SIGSTOP')
  writeFileSync(rig.path('go'), '')
  const [pid] = rig.events().flatMap(it => (it.event === 'train.start' ? [it.pid] : []))
  await until('it has ended', () => isEnded(String(pid)))
  process.kill(run.pid, 'SIGCONT')
  return run.ended
}

async function slowRig(burst: string): Promise<Rig> {
  const script =
    'for n in 1 2 3 4; do cp slow.onnx "$RANSOMEYE_OUTPUT_DIR"/$n.onnx; done; sleep 1; >ready; until [ -e go ]; do sleep 0.01; done; ' +
    `exec fallocate -l 45MiB "$RANSOMEYE_OUTPUT_DIR"/${burst}`
  const core = { maxDiskMb: 60, train: ['sh', '-c', script], models: ['*.onnx'], sandbox: 'off' as const }
  const rig = await trainerRig({ core })
  const nodes = Buffer.alloc(1_000_000 * 5, Buffer.from([0x0a, 0x03, 0x22, 0x01, 0x41]))
  writeFileSync(rig.path('slow.onnx'), onnxModel({ extra: { graph: nodes } }))
  return rig
}

/** When the last event of a kind came. */
function timeOf(events: TrainerEvent[], kind: TrainerEvent['event']): number {
  return Date.parse(events.findLast(it => it.event === kind)!.time)
}

inSweep('what a training writes in its last moment goes while its models are still judged', async () => {
  await using rig = await slowRig('1.checkpoint')

  const { exitCode, events, stdout } = await trainSlowModels(rig)

  assert.is(exitCode, 0, stdout)
  const judgedMs = timeOf(events, 'storage.usage') - timeOf(events, 'train.exit')
  const prunedMs = timeOf(events, 'storage.prune') - timeOf(events, 'train.exit')
  assert.ok(prunedMs < judgedMs / 2, `pruned after ${prunedMs} ms, judged after ${judgedMs} ms`)
  assert.is(events.filter(it => it.event === 'model.publish').length, 4)
})

inSweep(
  'a training that ends above its quota is not judged to the end where nothing can be pruned',
  async () => {
    await using rig = await slowRig('part')

    const startedMs = performance.now()
    await inspectOnnx(rig.path('slow.onnx'))
    const oneMs = performance.now() - startedMs

    const { exitCode, events, stdout } = await trainSlowModels(rig)

    assert.is(exitCode, 2, stdout)
    const endMs = timeOf(events, 'quota.exceeded') - timeOf(events, 'train.exit')
    assert.ok(endMs < 3 * oneMs, `ended after ${endMs} ms, one of four is judged in ${oneMs} ms`)
    assert.ok((await checkUsage(rig.path('models/core'))) < 60 * MIB)
  },
)

test.run()
