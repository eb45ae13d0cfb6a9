import { createHash } from 'node:crypto'
import { statSync, truncateSync, writeFileSync } from 'node:fs'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { InferenceSession } from 'onnxruntime-web'
import * as assert from 'uvu/assert'
import { inspectOnnx } from '../../lib/models/onnx.ts'
import { type OnnxOptions, onnxModel, writeHugeOnnx } from '../support/onnx-fixture.ts'
import { bytesRead } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const faults: [without: NonNullable<OnnxOptions['without']>, reason: string][] = [
  ['ir', 'has no IR version of at least 3'],
  ['opset', 'has no operator set'],
  ['graph', 'has no graph'],
  ['nodes', 'has no nodes'],
  ['operator', 'has no operator in one of its nodes'],
  ['inputs', 'has no inputs'],
]

test('inspectOnnx() accepts a model that ONNX Runtime loads', async () => {
  const model = onnxModel({ trailer: true })
  await using box = await sandbox({ 'a.onnx': model })

  const session = await InferenceSession.create(model)
  const { externalData } = await inspectOnnx(box.path('a.onnx'))

  assert.equal(session.inputNames, ['float_input'])
  assert.is(externalData.size, 0)
})

for (const [without, reason] of faults) {
  test(`inspectOnnx() refuses, as ONNX Runtime does, a model that ${reason}`, async () => {
    const model = onnxModel({ without })
    await using box = await sandbox({ 'a.onnx': model })

    const session = await InferenceSession.create(model).catch(() => undefined)

    assert.is(session, undefined)
    assert.is(await refusal(box.path('a.onnx')), reason)
  })
}

test('inspectOnnx() refuses a model without outputs, or of a time before operator sets', async () => {
  await using box = await sandbox({
    'mute.onnx': onnxModel({ without: 'outputs' }),
    'old.onnx': onnxModel({ irVersion: 2 }),
    'negative.onnx': onnxModel({ irVersion: -1 }),
  })

  assert.is(await refusal(box.path('mute.onnx')), 'has no outputs')
  assert.is(await refusal(box.path('old.onnx')), 'has no IR version of at least 3')
  assert.is(await refusal(box.path('negative.onnx')), 'has no IR version of at least 3')
})

test('inspectOnnx() refuses every model that is cut off, wherever it is cut', async () => {
  await using box = await sandbox()
  const file = box.path('a.onnx')
  const complete = onnxModel()
  const model = onnxModel({ trailer: true })

  const accepted: number[] = []
  for (let bytes = 0; bytes <= model.length; bytes++) {
    writeFileSync(file, model.subarray(0, bytes))
    if ((await refusal(file)) === undefined) accepted.push(bytes)
  }

  assert.is(model.subarray(0, complete.length).equals(complete), true, 'one prefix is a model by itself')
  assert.equal(accepted, [complete.length, model.length])
})

test('inspectOnnx() refuses an empty file, text, a pickle, zeros and noise', async () => {
  await using box = await sandbox()
  const file = box.path('a.onnx')
  const noise = Array.from({ length: 500 }, (_, seed) =>
    createHash('shake256', { outputLength: 4 * seed + 1 })
      .update(`${seed}`)
      .digest(),
  )
  const pickle = Buffer.from(
    '\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.',
    'latin1',
  )
  const contents = [Buffer.alloc(0), Buffer.from('{"model": "core"}\n'), pickle, Buffer.alloc(5000), ...noise]

  for (const content of contents) {
    writeFileSync(file, content)
    const reason = await refusal(file)
    assert.ok(reason, `accepted ${content.subarray(0, 40).toString('hex')}`)
  }
})

test('inspectOnnx() reads a few KiB of a model whose tensor has 2 GiB', async () => {
  await using box = await sandbox()
  writeHugeOnnx(box.path('a.onnx'), 2 ** 31)

  const before = bytesRead()
  await inspectOnnx(box.path('a.onnx'))
  const readBytes = bytesRead() - before

  assert.ok(readBytes < 16_384, `${readBytes} bytes read`)
})

test('inspectOnnx() refuses a 2 GiB model that lacks its last byte', async () => {
  await using box = await sandbox()
  writeHugeOnnx(box.path('a.onnx'), 2 ** 31)
  truncateSync(box.path('a.onnx'), statSync(box.path('a.onnx')).size - 1)

  assert.match((await refusal(box.path('a.onnx'))) ?? '', /^is cut off or damaged at byte \d+$/)
})

for (const holder of ['initializer', 'sparse', 'attribute', 'branch'] as const) {
  test(`inspectOnnx() finds external data of a tensor in: ${holder}`, async () => {
    const external = [
      { location: 'a.bin', offset: 4096, length: 100 },
      { location: 'b.bin' },
      { location: 'a.bin', offset: 0, length: 10 },
    ]
    await using box = await sandbox({ 'a.onnx': onnxModel({ external, holder }) })

    const { externalData } = await inspectOnnx(box.path('a.onnx'))

    assert.equal(
      [...externalData],
      [
        ['a.bin', 4196],
        ['b.bin', 0],
      ],
    )
  })
}

test('inspectOnnx() refuses external data that is not described as it should be', async () => {
  await using box = await sandbox({
    'nowhere.onnx': onnxModel({ external: [{ length: 8 }] }),
    'negative.onnx': onnxModel({ external: [{ location: 'a.bin', offset: -8 }] }),
    'word.onnx': onnxModel({ external: [{ location: 'a.bin', length: '0x10' }] }),
    'long.onnx': onnxModel({ external: [{ location: 'a'.repeat(5000) }] }),
  })

  assert.is(await refusal(box.path('nowhere.onnx')), 'has external data without a location')
  assert.is(await refusal(box.path('negative.onnx')), 'has external data with an unusable offset')
  assert.is(await refusal(box.path('word.onnx')), 'has external data with an unusable length')
  assert.match((await refusal(box.path('long.onnx'))) ?? '', /^is cut off or damaged/)
})

test('inspectOnnx() refuses graphs within graphs beyond the depth that protobuf reads', async () => {
  await using box = await sandbox({ 'deep.onnx': deepModel(40), 'shallow.onnx': deepModel(30) })

  assert.is(await refusal(box.path('deep.onnx')), 'has more than 100 messages within messages')
  assert.is(await refusal(box.path('shallow.onnx')), undefined)
})

function wrap(field: number, content: Uint8Array): Uint8Array {
  return new BinaryWriter().tag(field, WireType.LengthDelimited).bytes(content).finish()
}

/** A model with an If in an If in an If: each is a node, an attribute and a graph, three messages. */
function deepModel(levels: number): Buffer {
  const named = (operator: string) =>
    new BinaryWriter().tag(4, WireType.LengthDelimited).string(operator).finish()
  let node = named('Identity')
  for (let level = 0; level < levels; level++) {
    node = Buffer.concat([named('If'), wrap(5, wrap(6, wrap(1, node)))])
  }
  const value = wrap(1, Buffer.from('x'))
  const graph = Buffer.concat([wrap(1, node), wrap(11, value), wrap(12, value)])
  return Buffer.concat([onnxModel({ without: 'graph' }), wrap(7, graph)])
}

async function refusal(file: string): Promise<string | undefined> {
  try {
    await inspectOnnx(file)
    return undefined
  } catch (error) {
    return (error as Error).message
  }
}

test('inspectOnnx() gives everything else its turn while it walks a million nodes', async () => {
  const node = Buffer.from([0x0a, 0x03, 0x22, 0x01, 0x41]) // a node with the operator "A"
  const value = wrap(1, Buffer.from('x'))
  const nodes = Buffer.alloc(1_000_000 * node.length, node)
  const graph = Buffer.concat([nodes, wrap(11, value), wrap(12, value)])
  await using box = await sandbox({
    'a.onnx': Buffer.concat([onnxModel({ without: 'graph' }), wrap(7, graph)]),
  })
  let longestMs = 0
  let lastMs = performance.now()
  const timer = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - lastMs)
    lastMs = performance.now()
  }, 1)

  const startedMs = performance.now()
  await inspectOnnx(box.path('a.onnx'))
  const tookMs = performance.now() - startedMs

  clearInterval(timer)
  assert.ok(tookMs > 50 && longestMs < tookMs / 2, `${longestMs} of ${tookMs} ms`)
})

test.run()
