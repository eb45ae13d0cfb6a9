import { readFileSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { checkUsage } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { type Rig, trainerRig } from '../support/rig.ts'
import { sampleUsage } from '../support/sampler.ts'
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

test.run()
