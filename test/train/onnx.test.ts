import { readFileSync } from 'node:fs'
import { BinaryReader } from '@bufbuild/protobuf/wire'
import * as ort from 'onnxruntime-web'
import * as assert from 'uvu/assert'
import { inspectOnnx } from '../../lib/models/onnx.ts'
import type { Scored } from '../../scripts/train/samples.ts'
import { sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'
import { smallJobs, trainSmall } from '../support/train-fixture.ts'

ort.env.wasm.numThreads = 1

for (const job of smallJobs) {
  inSweep(`the ${job.name} model says in ONNX Runtime what its trainer says`, async () => {
    await using box = await sandbox()
    const { holdout } = await trainSmall(job, box.dir)

    const { labels, probabilities } = await run(readFileSync(box.path(`${job.name}.onnx`)), holdout)

    assert.is(labels.length, holdout.length)
    assert.ok(holdout.length > 100)
    let largestDifference = 0
    for (const [row, sample] of holdout.entries()) {
      const theirs = probabilities.subarray(row * job.classes.length, (row + 1) * job.classes.length)
      for (const [column, ours] of sample.probabilities.entries()) {
        largestDifference = Math.max(largestDifference, Math.abs(ours - theirs[column]!))
      }
      const [first, second] = [...sample.probabilities].sort((a, b) => b - a)
      if (first! - second! > 2e-5) assert.is(Number(labels[row]), sample.predicted)
    }
    assert.ok(largestDifference <= 1e-5, `probabilities differ by ${largestDifference}`)
  })
}

test('the comparison with ONNX Runtime notices one wrong weight', async () => {
  await using box = await sandbox()
  const { classifier, holdout, onnx } = await trainSmall(smallJobs[1]!, box.dir)
  const weights = classifier.network.weights
  const bias = Buffer.alloc(4)
  bias.writeFloatLE(weights.at(-1)!)
  const place = Buffer.from(onnx).indexOf(bias)
  assert.ok(place > 0)
  const changed = Buffer.from(onnx)
  changed.writeFloatLE(weights.at(-1)! + 0.01, place)

  const { probabilities } = await run(changed, holdout)

  const ours = holdout.flatMap(sample => [...sample.probabilities])
  assert.ok(ours.some((value, index) => Math.abs(value - probabilities[index]!) > 1e-5))
})

test('a seed model is whole, of operator set 13 or later, and takes any number of rows', async () => {
  await using box = await sandbox()
  const { holdout, onnx } = await trainSmall(smallJobs[1]!, box.dir)
  const session = await ort.InferenceSession.create(onnx)

  const one = await run(onnx, holdout.slice(0, 1))

  assert.is((await inspectOnnx(box.path('dpi.onnx'))).externalData.size, 0)
  assert.ok(opsetOf(onnx) >= 13)
  assert.equal(session.inputNames, ['float_input'])
  assert.equal(session.outputNames, ['label', 'probabilities'])
  assert.is(one.labels.length, 1)
})

test('a seed model carries its description in metadata_props', async () => {
  await using box = await sandbox()
  const { metrics, onnx } = await trainSmall(smallJobs[1]!, box.dir, { seed: 11 })

  const properties = propertiesOf(onnx)

  const told = JSON.parse(readFileSync(box.path('metadata.json'), 'utf8'))
  assert.equal(JSON.parse(properties.features!), smallJobs[1]!.features)
  assert.equal(JSON.parse(properties.classes!), smallJobs[1]!.classes)
  assert.equal(JSON.parse(properties.performance_metrics!), metrics)
  assert.is(properties.seed, '11')
  assert.is(properties.version, told.version)
  assert.is(properties.trained_on, told.trained_on)
})

async function run(model: Uint8Array, rows: Scored[]) {
  const session = await ort.InferenceSession.create(model)
  const width = rows[0]!.features.length
  const input = new Float32Array(rows.length * width)
  for (const [index, { features }] of rows.entries()) input.set(features, index * width)
  const { label, probabilities } = await session.run({
    float_input: new ort.Tensor('float32', input, [rows.length, width]),
  })
  assert.is(label!.type, 'int64')
  assert.equal(label!.dims, [rows.length])
  assert.is(probabilities!.dims[0], rows.length)
  return { labels: label!.data as BigInt64Array, probabilities: probabilities!.data as Float32Array }
}

/** The fields of a protobuf message that hold bytes, by number. */
function* bytesOf(message: Uint8Array, wanted: number): Generator<Uint8Array> {
  const reader = new BinaryReader(message)
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === wanted) yield reader.bytes()
    else reader.skip(wireType)
  }
}

function propertiesOf(model: Uint8Array): Record<string, string> {
  const entries = [...bytesOf(model, 14)].map(entry => {
    const [key, value] = [1, 2].map(field => Buffer.from([...bytesOf(entry, field)][0]!).toString())
    return [key, value]
  })
  return Object.fromEntries(entries)
}

function opsetOf(model: Uint8Array): number {
  const reader = new BinaryReader([...bytesOf(model, 8)][0]!)
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === 2) return Number(reader.int64())
    reader.skip(wireType)
  }
  return 0
}

test.run()
