import { createHash } from 'node:crypto'
import { statSync, truncateSync, writeFileSync } from 'node:fs'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { InferenceSession } from 'onnxruntime-web'
import * as assert from 'uvu/assert'
import { inspectOnnx } from '../../lib/models/onnx.ts'
import { type OnnxOptions, onnxModel, writeHugeOnnx } from '../support/onnx-fixture.ts'
import { bytesRead } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const NEARLY_2_GIB = 2 ** 31 - 4096

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

test('inspectOnnx() reads a few KiB of a model whose tensor has nearly 2 GiB', async () => {
  await using box = await sandbox()
  writeHugeOnnx(box.path('a.onnx'), NEARLY_2_GIB)

  const before = bytesRead()
  await inspectOnnx(box.path('a.onnx'))
  const readBytes = bytesRead() - before

  assert.ok(readBytes < 16_384, `${readBytes} bytes read`)
})

test('inspectOnnx() refuses a model of 2 GiB in one file, which no protobuf library reads', async () => {
  await using box = await sandbox()
  writeHugeOnnx(box.path('a.onnx'), 2 ** 31)

  assert.match(
    (await refusal(box.path('a.onnx'))) ?? '',
    /^has 2147\d+ bytes, .*keep weights in external data$/,
  )
})

test('inspectOnnx() refuses a model of nearly 2 GiB that lacks its last byte', async () => {
  await using box = await sandbox()
  writeHugeOnnx(box.path('a.onnx'), NEARLY_2_GIB)
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
        ['b.bin', 1],
      ],
    )
  })
}

test('inspectOnnx() finds one file of external data however its location is spelt', async () => {
  const external = ['w.bin', './w.bin', '././/./w.bin', 'w.bin/.'].map((location, offset) => ({
    location,
    offset,
  }))
  const others = ['sub//w.bin', '../w.bin', 'sub/../w.bin', '//w.bin', 'w.bin/', ''].map(location => ({
    location,
  }))
  await using box = await sandbox({ 'a.onnx': onnxModel({ external: [...external, ...others] }) })

  const { externalData } = await inspectOnnx(box.path('a.onnx'))

  assert.equal(
    [...externalData],
    [
      ['w.bin', 4],
      ...['sub/w.bin', '../w.bin', 'sub/../w.bin', '/w.bin', 'w.bin/', ''].map(location => [location, 1]),
    ],
  )
})

test('inspectOnnx() refuses a model with more files of external data than a manifest has room for', async () => {
  const named = (files: number) =>
    onnxModel({ external: Array.from({ length: files }, (_, index) => ({ location: `./${index}.bin` })) })
  await using box = await sandbox({ 'most.onnx': named(10_000), 'more.onnx': named(10_001) })

  const reasons = await Promise.all(['most.onnx', 'more.onnx'].map(name => refusal(box.path(name))))

  assert.equal(reasons, [
    undefined,
    'keeps its data in more than 10000 files, for which no manifest has room; export it with one file for all tensors',
  ])
})

test('inspectOnnx() refuses external data that is not described as it should be', async () => {
  await using box = await sandbox({
    'nowhere.onnx': onnxModel({ external: [{ length: 8 }] }),
    'negative.onnx': onnxModel({ external: [{ location: 'a.bin', offset: -8 }] }),
    'word.onnx': onnxModel({ external: [{ location: 'a.bin', length: '0x10' }] }),
    'long.onnx': onnxModel({ external: [{ location: 'a'.repeat(70_000) }] }),
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

/** An input or output of floats. */
function valueNamed(name: string): Uint8Array {
  const float = new BinaryWriter().tag(1, WireType.Varint).int32(1).finish()
  return Buffer.concat([wrap(1, Buffer.from(name)), wrap(2, wrap(1, float))])
}

/** A model with an If in an If in an If: each is a node, an attribute and a graph, three messages. */
function deepModel(levels: number): Buffer {
  const named = (operator: string) =>
    new BinaryWriter().tag(4, WireType.LengthDelimited).string(operator).finish()
  const type = new BinaryWriter().tag(20, WireType.Varint).int32(5).finish()
  let node = named('Identity')
  for (let level = 0; level < levels; level++) {
    const attribute = Buffer.concat([wrap(1, Buffer.from('then_branch')), wrap(6, wrap(1, node)), type])
    node = Buffer.concat([named('If'), wrap(5, attribute)])
  }
  const graph = Buffer.concat([wrap(1, node), wrap(11, valueNamed('x')), wrap(12, valueNamed('x'))])
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
  const value = valueNamed('x')
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

/** A node with these inputs and this output. */
function nodeOf(inputs: string[], output: string, domain = ''): Uint8Array {
  const parts = [...inputs.map(name => wrap(1, Buffer.from(name))), wrap(2, Buffer.from(output))]
  return wrap(1, Buffer.concat([...parts, wrap(4, Buffer.from('Add')), wrap(7, Buffer.from(domain))]))
}

/** A tensor of four values by its type, and the fields that hold them. */
function tensorOf(type: number, values: [field: number, content: number][]): Uint8Array {
  const tensor = new BinaryWriter().tag(1, WireType.Varint).int64(4).tag(2, WireType.Varint).int32(type)
  tensor.tag(8, WireType.LengthDelimited).string('extra')
  for (const [field, bytes] of values)
    tensor.tag(field, WireType.LengthDelimited).bytes(new Uint8Array(bytes))
  return wrap(5, tensor.finish())
}

const tensors: [what: string, type: number, values: [number, number][], reason: string | undefined][] = [
  ['raw floats', 1, [[9, 16]], undefined],
  ['raw floats, one byte short', 1, [[9, 15]], 'has 15 bytes of values, its dimensions need 16'],
  ['raw floats, four bytes more', 1, [[9, 20]], 'has 20 bytes of values, its dimensions need 16'],
  ['floats one by one', 1, [[4, 16]], undefined],
  ['three floats one by one', 1, [[4, 12]], 'has 3 values, its dimensions need 4'],
  ['bytes one by one', 2, [[5, 4]], undefined],
  ['three bytes one by one', 2, [[5, 3]], 'has 3 values, its dimensions need 4'],
  ['raw four-bit numbers', 22, [[9, 2]], undefined],
  ['raw four-bit numbers, one too few', 22, [[9, 1]], 'has 1 bytes of values, its dimensions need 2'],
  ['complex numbers one by one', 14, [[4, 32]], undefined],
  ['long integers one by one', 7, [[7, 4]], undefined],
  [
    'strings',
    8,
    [
      [6, 1],
      [6, 0],
      [6, 2],
      [6, 1],
    ],
    undefined,
  ],
  [
    'three strings',
    8,
    [
      [6, 1],
      [6, 0],
      [6, 2],
    ],
    'has 3 values, its dimensions need 4',
  ],
  ['strings as raw bytes', 8, [[9, 4]], 'keeps strings as raw bytes'],
  ['no values', 1, [], 'has no values'],
  [
    'values twice',
    1,
    [
      [4, 16],
      [9, 16],
    ],
    'has its values twice',
  ],
  ['values of another type', 1, [[7, 4]], 'has values of another type'],
  ['an unknown type', 99, [[9, 16]], 'is of type 99, which there is not'],
]

for (const [what, type, values, reason] of tensors) {
  test(`inspectOnnx() ${reason ? 'refuses' : 'accepts'} a tensor of four values with ${what}`, async () => {
    await using box = await sandbox({ 'a.onnx': onnxModel({ extra: { graph: tensorOf(type, values) } }) })

    assert.is(await refusal(box.path('a.onnx')), reason && `has a tensor (extra) that ${reason}`)
  })
}

test('inspectOnnx() counts numbers of several bytes each, and only bounds very many', async () => {
  const numbers = (count: number) => {
    const tensor = new BinaryWriter().tag(1, WireType.Varint).int64(count).tag(2, WireType.Varint).int32(7)
    const packed = Buffer.alloc(2 * 50_000, Buffer.from([0x81, 0x01]))
    return wrap(5, tensor.tag(8, WireType.LengthDelimited).string('n').raw(wrap(7, packed)).finish())
  }
  const cases = { 'right.onnx': 50_000, 'few.onnx': 9_999, 'many.onnx': 100_001 }
  await using box = await sandbox(
    Object.fromEntries(
      Object.entries(cases).map(([name, count]) => [name, onnxModel({ extra: { graph: numbers(count) } })]),
    ),
  )

  assert.is(await refusal(box.path('right.onnx')), undefined)
  assert.match((await refusal(box.path('few.onnx'))) ?? '', /has 10000 to 100000 values, .* need 9999$/)
  assert.match((await refusal(box.path('many.onnx'))) ?? '', /has 10000 to 100000 values, .* need 100001$/)
})

test('inspectOnnx() refuses what no runtime can connect: names that nothing gives, or two things give', async () => {
  const chain = (...nodes: Uint8Array[]) => onnxModel({ extra: { graph: Buffer.concat(nodes) } })
  const cases: Record<string, [Buffer, string | undefined]> = {
    chained: [chain(nodeOf(['output', ''], 'a'), nodeOf(['a', 'bias'], 'b')), undefined],
    unsorted: [chain(nodeOf(['b'], 'a'), nodeOf(['output'], 'b')), 'uses b, which nothing before gives'],
    unknown: [chain(nodeOf(['typo'], 'a')), 'uses typo, which nothing before gives'],
    twice: [chain(nodeOf(['output'], 'a'), nodeOf(['bias'], 'a')), 'has two nodes that make a'],
    input: [chain(nodeOf(['bias'], 'float_input')), 'gives float_input to the graph and makes it in a node'],
    output: [
      onnxModel({ extra: { graph: wrap(12, valueNamed('lost')) } }),
      'uses lost, which nothing before gives',
    ],
    domain: [
      chain(nodeOf(['output'], 'a', 'com.example')),
      'uses operators of com.example, a domain that it does not declare',
    ],
    declared: [
      onnxModel({
        extra: {
          graph: nodeOf(['output'], 'a', 'com.example'),
          model: wrap(8, Buffer.concat([wrap(1, Buffer.from('com.example')), Buffer.from([0x10, 1])])),
        },
      }),
      undefined,
    ],
  }
  await using box = await sandbox(Object.fromEntries(Object.entries(cases).map(([name, [it]]) => [name, it])))

  for (const [name, [, reason]] of Object.entries(cases))
    assert.is(await refusal(box.path(name)), reason, name)
})

test('inspectOnnx() refuses names of operators and attributes that are none', async () => {
  const withAttribute = (name: string) => {
    const attribute = new BinaryWriter().tag(1, WireType.LengthDelimited).string(name)
    return onnxModel({ extra: { node: wrap(5, attribute.tag(20, WireType.Varint).int32(2).finish()) } })
  }
  const named = (operator: string) => {
    const model = onnxModel()
    model.write(operator, model.indexOf('Add'))
    return model
  }
  await using box = await sandbox({
    'good.onnx': withAttribute('axis'),
    'attribute.onnx': withAttribute('ax\x01s'),
    'digit.onnx': withAttribute('8xis'),
    'operator.onnx': named('A-d'),
    'letter.onnx': named('\x01dd'),
  })

  assert.is(await refusal(box.path('good.onnx')), undefined)
  for (const name of ['attribute', 'digit'])
    assert.is(await refusal(box.path(`${name}.onnx`)), 'has an attribute with a damaged name')
  for (const name of ['operator', 'letter'])
    assert.is(await refusal(box.path(`${name}.onnx`)), 'has a damaged operator in one of its nodes')
})

test('inspectOnnx() lets a branch use the names around it, and refuses one that nothing gives', async () => {
  const branch = (input: string) => {
    const type = new BinaryWriter().tag(20, WireType.Varint).int32(5).finish()
    const graph = wrap(6, nodeOf([input], 'inner'))
    const attribute = Buffer.concat([wrap(1, Buffer.from('then_branch')), graph, type])
    return onnxModel({
      extra: { graph: wrap(1, Buffer.concat([wrap(4, Buffer.from('If')), wrap(5, attribute)])) },
    })
  }
  await using box = await sandbox({ around: branch('output'), nowhere: branch('inner') })

  assert.is(await refusal(box.path('around')), undefined)
  assert.is(await refusal(box.path('nowhere')), 'uses inner, which nothing before gives')
})

test('inspectOnnx() refuses a file that was written twice, or has fields that there are not', async () => {
  await using box = await sandbox({
    twice: Buffer.concat([onnxModel(), onnxModel()]),
    unknown: onnxModel({ extra: { model: wrap(99, Buffer.from('?')) } }),
    later: onnxModel({ irVersion: 99, extra: { model: wrap(99, Buffer.from('?')) } }),
    attribute: onnxModel({ extra: { node: wrap(5, wrap(1, Buffer.from('alpha'))) } }),
  })

  assert.is(await refusal(box.path('twice')), 'has two fields 1 in its model message')
  assert.is(await refusal(box.path('unknown')), 'has a field 99 in its model message, which there is not')
  assert.is(await refusal(box.path('later')), undefined, 'a later version of the format may have more fields')
  assert.is(await refusal(box.path('attribute')), 'has an attribute (alpha) without a type')
})

inSweep('inspectOnnx() is soon done with a file that was made to be slow', async () => {
  const millions = (unit: number[]) => Buffer.alloc(5_000_000 * unit.length, Buffer.from(unit))
  const numbers = Buffer.concat([Buffer.from([0x10, 7]), wrap(7, Buffer.alloc(65_000, 1))])
  const manyNumbers = Array.from({ length: 400 }, (_, index) => {
    const dimension = new BinaryWriter().tag(1, WireType.Varint).int64(65_000).finish()
    return wrap(5, Buffer.concat([dimension, wrap(8, Buffer.from(`n${index}`)), numbers]))
  })
  const impossible = 'has a tensor of a size that cannot be'
  const cases: Record<string, [Buffer, string | undefined]> = {
    metadata: [onnxModel({ extra: { model: millions([0x72, 0]) } }), 'has more than 4000000 fields'],
    inputs: [onnxModel({ extra: { node: millions([0x0a, 0]) } }), 'has a node with more than 65536 names'],
    dimensions: [onnxModel({ extra: { graph: wrap(5, millions([0x08, 1])) } }), impossible],
    'packed dimensions': [onnxModel({ extra: { graph: wrap(5, wrap(1, millions([1]))) } }), impossible],
    numbers: [onnxModel({ extra: { graph: Buffer.concat(manyNumbers) } }), undefined],
  }
  await using box = await sandbox(
    Object.fromEntries(Object.entries(cases).map(([name, [model]]) => [name, model])),
  )

  for (const [name, [, reason]] of Object.entries(cases)) {
    const startedMs = process.cpuUsage().user / 1000
    assert.is(await refusal(box.path(name)), reason, name)
    const tookMs = process.cpuUsage().user / 1000 - startedMs
    assert.ok(tookMs < 3000, `${name}: ${tookMs} ms`)
  }
})

test('inspectOnnx() refuses packed numbers that end in the middle of one, or have one without an end', async () => {
  const packed = (...bytes: number[]) => {
    const tensor = new BinaryWriter().tag(1, WireType.Varint).int64(1).tag(2, WireType.Varint).int32(7)
    const content = tensor
      .tag(8, WireType.LengthDelimited)
      .string('n')
      .raw(wrap(7, Uint8Array.from(bytes)))
    return onnxModel({ extra: { graph: wrap(5, content.finish()) } })
  }
  const endless = Array.from({ length: 10 }, () => 0x80)
  await using box = await sandbox({
    'good.onnx': packed(...endless.slice(1), 1),
    'cut.onnx': packed(0x80),
    'endless.onnx': packed(...endless, 1),
  })

  assert.is(await refusal(box.path('good.onnx')), undefined)
  for (const name of ['cut.onnx', 'endless.onnx'])
    assert.match((await refusal(box.path(name))) ?? '', /^is cut off or damaged at byte \d+$/)
})

test('inspectOnnx() refuses nearly every change of a byte that ONNX Runtime refuses', async () => {
  const model = onnxModel()
  await using box = await sandbox()
  const missed: number[] = []
  let refusedByRuntime = 0

  for (let at = 0; at < model.length; at++) {
    const changed = Buffer.from(model)
    changed[at] = (changed[at]! + 1 + ((at * 37) % 255)) % 256
    const isLoaded = await InferenceSession.create(changed, { logSeverityLevel: 4 }).then(
      session => session.release().then(() => true),
      () => false,
    )
    if (isLoaded) continue
    refusedByRuntime++
    writeFileSync(box.path('a.onnx'), changed)
    if ((await refusal(box.path('a.onnx'))) === undefined) missed.push(at)
  }

  assert.ok(refusedByRuntime > model.length / 3, `${refusedByRuntime} of ${model.length}`)
  assert.ok(
    missed.length <= refusedByRuntime / 10,
    `missed ${missed.length} of ${refusedByRuntime}: ${missed}`,
  )
})

test.run()
