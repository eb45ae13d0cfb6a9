import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { InferenceSession } from 'onnxruntime-web'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { findModels } from '../../lib/models/find.ts'
import { generationOf } from '../../lib/models/generations.ts'
import { composeManifest, readManifest as readBack, writeManifest } from '../../lib/models/manifest.ts'
import { inspectOnnx } from '../../lib/models/onnx.ts'
import { relocate } from '../../lib/models/relocate.ts'
import { formerGenerations } from '../../lib/models/retire.ts'
import { assertReturnable, formerGeneration, rollBack } from '../../lib/models/rollback.ts'
import { share } from '../../lib/models/sharing.ts'
import { verifyPublished } from '../../lib/models/verify.ts'
import { checkPublished } from '../../lib/models.ts'
import { checkUsage } from '../../lib/storage.ts'
import { failure } from '../support/failure.ts'
import { onnxModel, writeHugeOnnx } from '../support/onnx-fixture.ts'
import { programOf } from '../support/places.ts'
import {
  facts,
  filesBelow,
  publishFlatFiles,
  readManifest,
  rejection,
  sha256Of,
  startAgain,
  trainAndPublish,
  writeFiles,
} from '../support/publishing.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const { globs } = facts
const isRoot = process.getuid?.() === 0
const canTrace = spawnSync('strace', ['-f', 'true']).status === 0
const withData = (producer: string, location = 'w.bin') => onnxModel({ producer, external: [{ location }] })

test('publish() makes a generation current, with flat names that are the same files and charged once', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer: 'x'.repeat(1_000_000) }) })
  const usedBytes = await checkUsage(box.dir)

  const inodes = ['core.onnx', 'current/core.onnx', 'generations/1/core.onnx'].map(
    it => statSync(box.path(it)).ino,
  )
  assert.is(readlinkSync(box.path('current')), 'generations/1')
  assert.is(new Set(inodes).size, 1)
  assert.is(statSync(box.path('manifest.json')).ino, statSync(box.path('current/manifest.json')).ino)
  assert.ok(usedBytes < 1_200_000, `${usedBytes} bytes used`)
})

test('publish() keeps as many generations as it is told, and the one that was current until the next start', async () => {
  await using box = await sandbox()
  const publishAll = async (keepGenerations: number, producers: string[]) => {
    for (const producer of producers)
      await trainAndPublish(
        box.dir,
        { 'core.onnx': onnxModel({ producer }) },
        { options: { keepGenerations } },
      )
    return readdirSync(box.path('generations')).sort()
  }

  assert.equal(await publishAll(1, ['a', 'b', 'c']), ['2', '3'])
  assert.equal(await publishAll(2, ['d', 'e']), ['3', '4', '5'])
  assert.equal(await publishAll(0, ['f']), ['5', '6'])
  await startAgain(box.dir, globs, 0)
  assert.equal(readdirSync(box.path('generations')), ['6'])
})

test('publish() gives external data of the same name a name of its own, and says so in the model', async () => {
  await using box = await sandbox()
  const trainings = ['first', 'second', 'third'].map(it => ({
    'core.onnx': withData(it),
    'w.bin': `${it} weights`,
  }))
  await trainAndPublish(box.dir, trainings[0]!)
  await trainAndPublish(box.dir, trainings[1]!)
  const betweenTwo = filesBelow(box.dir)
  await startAgain(box.dir)
  await trainAndPublish(box.dir, trainings[2]!)
  await startAgain(box.dir)

  const [model] = (await findModels(box.dir, globs)).valid
  assert.equal(betweenTwo, ['core.onnx', 'manifest.json', 'w-2.bin', 'w.bin'])
  assert.equal(filesBelow(box.dir), ['core.onnx', 'manifest.json', 'w-3.bin'])
  assert.equal(model?.references, [box.path('w-3.bin')])
  assert.is(readFileSync(box.path('w-3.bin'), 'utf8'), 'third weights')
  assert.equal(readManifest(box.dir).metadata.renamed, { 'w-3.bin': 'w.bin' })
  assert.equal(readManifest(box.dir).files, {
    'w-3.bin': sha256Of('third weights'),
    'core.onnx': sha256Of(readFileSync(box.path('core.onnx'))),
  })
  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx as published')
})

test('publish() leaves external data its name where the content is that of last time', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': withData('old'), 'w.bin': 'weights' })
  const next = withData('new')

  await trainAndPublish(box.dir, { 'core.onnx': next, 'w.bin': 'weights' })

  assert.equal(readManifest(box.dir).files, { 'w.bin': sha256Of('weights'), 'core.onnx': sha256Of(next) })
})

test('publish() replaces external data that is damaged under its own name: no reader can load it', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': withData('old'), 'w.bin': 'weights' })
  truncateSync(box.path('w.bin'), 0)
  await startAgain(box.dir)

  await trainAndPublish(box.dir, { 'core.onnx': withData('new'), 'w.bin': 'better' })

  assert.is(readFileSync(box.path('w.bin'), 'utf8'), 'better')
  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx as published')
})

test("publish() leaves somebody's own file alone where external data would have its flat name", async () => {
  await using box = await sandbox({ 'w.bin': 'notes' })

  await trainAndPublish(box.dir, { 'core.onnx': withData('new'), 'w.bin': 'weights' })

  assert.is(readFileSync(box.path('w.bin'), 'utf8'), 'notes')
  assert.equal(readManifest(box.dir).metadata.renamed, { 'w-1.bin': 'w.bin' })
  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx as published')
})

test('publish() takes external data for what it is where a glob names it as a model too', async () => {
  await using box = await sandbox()
  const train = (producer: string) =>
    trainAndPublish(
      box.dir,
      { 'core.onnx': withData(producer, 'core.onnx.data'), 'core.onnx.data': producer },
      { models: ['core.onnx', 'core.onnx.data'], globs: ['*.onnx', '*.data'] },
    )
  await train('first')
  const published = await train('second')

  const check = await checkPublished(box.dir, ['*.onnx', '*.data'])
  assert.equal(
    published.map(({ path }) => path),
    [box.path('core.onnx')],
  )
  assert.equal(readManifest(box.dir).metadata.models, ['core.onnx'])
  assert.equal([check.missing, check.adopt], [false, []])
  assert.is(readFileSync(box.path('core.onnx-2.data'), 'utf8'), 'second')
})

for (const holder of ['initializer', 'sparse', 'attribute', 'branch'] as const) {
  test(`relocate() changes the location of a tensor in: ${holder}, and nothing else`, async () => {
    const external = [
      { location: 'a.bin', offset: 0, length: 4 },
      { location: './b.bin' },
      { location: 'a.bin', offset: 4 },
    ]
    const model = onnxModel({ external, holder, producer: 'x'.repeat(100), trailer: true })
    await using box = await sandbox({ 'core.onnx': model })
    const long = `${'d'.repeat(200)}.bin`

    await relocate(box.path('core.onnx'), box.path('there.onnx'), new Map([['a.bin', long]]))
    await relocate(box.path('there.onnx'), box.path('back.onnx'), new Map([[long, 'a.bin']]))

    const { externalData } = await inspectOnnx(box.path('there.onnx'))
    assert.equal([...externalData.keys()].sort(), ['b.bin', long].sort())
    assert.ok(readFileSync(box.path('back.onnx')).equals(model))
  })
}

inSweep('relocate() ends where the model becomes shorter meanwhile', async () => {
  await using box = await sandbox()
  writeHugeOnnx(box.path('core.onnx'), 2 ** 27)
  const there = box.path('there.onnx')
  const relocated = rejection(relocate(box.path('core.onnx'), there, new Map(), AbortSignal.timeout(10_000)))
  await until('it writes', () => existsSync(there))
  truncateSync(box.path('core.onnx'), 1000)

  assert.match(((await relocated) as Error).message, /^has become shorter than \d+ bytes meanwhile$/)
})

test('a model whose data has got another name is one that ONNX Runtime loads, with the new data', async () => {
  await using box = await sandbox()
  const bytes = (value: number) => Buffer.from(Uint8Array.of(value))
  await trainAndPublish(box.dir, { 'core.onnx': withData('old'), 'w.bin': bytes(1) })
  await trainAndPublish(box.dir, { 'core.onnx': withData('new'), 'w.bin': bytes(2) })

  const data = bytes(2)
  const load = (path: string) =>
    InferenceSession.create(readFileSync(box.path('core.onnx')), { externalData: [{ path, data }] })

  assert.equal((await load('w-2.bin')).outputNames, ['output'])
})

test('a set of files that only work together has no flat names: a reader would mix two trainings', async () => {
  await using box = await sandbox()
  const warnings: string[] = []
  const options = { warn: (message: string) => warnings.push(message) }
  const models = ['a.safetensors', 'b.safetensors', 'index.json']
  const train = (content: string) => {
    const files = Object.fromEntries(models.map(name => [name, content]))
    return trainAndPublish(box.dir, files, { models, globs: ['*.safetensors', '*.json'], options })
  }
  publishFlatFiles(box.dir, Object.fromEntries(models.map(it => [it, 'flat'])), ['*.safetensors', '*.json'])
  await startAgain(box.dir, ['*.safetensors', '*.json'])
  const afterUpgrade = filesBelow(box.dir)

  const published = await train('new')

  assert.equal(afterUpgrade, [...models, 'manifest.json'].sort())
  assert.equal(filesBelow(box.dir), ['manifest.json'])
  assert.equal(
    published.map(({ path }) => path),
    models.map(name => box.path('generations/2', name)),
  )
  assert.match(
    warnings.join(),
    /^a\.safetensors and 2 more no longer stand in \S+ itself, so that no reader mixes two trainings; read them in \S+\/current$/,
  )
  assert.is((await checkPublished(box.dir, ['*.safetensors', '*.json'])).missing, false)
})

for (const [size, tensors] of [
  ['', 0],
  [' of many tensors', 10_000],
] as const)
  test(`an index${size} is not published without the shards that it names`, async () => {
    await using box = await sandbox()
    const many = Array.from({ length: tensors }, (_, n) => [
      `model.layers.${n}.weight`,
      'model-1.safetensors',
    ])
    const map = { ...Object.fromEntries(many), a: 'model-1.safetensors', b: 'model-2.safetensors' }
    const index = JSON.stringify({ weight_map: map })
    const files = { 'model.safetensors.index.json': index, 'model-1.safetensors': 'one' }
    const models = Object.keys(files)

    const error = (await rejection(trainAndPublish(box.dir, files, { models, globs: ['*'] }))) as TrainerError
    const whole = { ...files, 'model-2.safetensors': 'two' }
    await trainAndPublish(box.dir, whole, { models: Object.keys(whole), globs: ['*'] })

    assert.is(error.code, 'training-failed')
    assert.match(error.message, /index\.json: it names model-2\.safetensors, which is not among the models/)
    assert.equal(Object.keys(readManifest(box.dir).files).sort(), Object.keys(whole).sort())
  })

test('a model that is a folder is published whole, under one flat name', async () => {
  await using box = await sandbox()
  const names = [
    'core.mlmodelc/metadata.json',
    'core.mlmodelc/manifest.json',
    'core.mlmodelc/analytics/a.bin',
  ]
  const train = (content: string) =>
    trainAndPublish(box.dir, Object.fromEntries(names.map(name => [name, content])), {
      models: names,
      globs: ['core.mlmodelc/**'],
    })
  await train('old')
  await train('new')

  assert.is(readlinkSync(box.path('core.mlmodelc')), 'current/core.mlmodelc')
  for (const name of names) assert.is(readFileSync(box.path(name), 'utf8'), 'new')
  assert.is((await checkPublished(box.dir, ['core.mlmodelc/**'])).missing, false)
  assert.equal((await verifyPublished(box.dir, ['core.mlmodelc/**'])).differences, [])
})

test('a folder that was published as files gets a flat name of its own at the next publication', async () => {
  await using box = await sandbox()
  const names = ['model/a.bin2', 'model/b.bin2']
  const files = (content: string) => Object.fromEntries(names.map(name => [name, content]))
  publishFlatFiles(box.dir, files('old'), ['model/**'])
  await startAgain(box.dir, ['model/**'])
  const stays = lstatSync(box.path('model')).isDirectory()

  await trainAndPublish(box.dir, files('new'), { models: names, globs: ['model/**'] })

  assert.is(stays, true)
  assert.is(readlinkSync(box.path('model')), 'current/model')
  assert.is(readFileSync(box.path('model/b.bin2'), 'utf8'), 'new')
})

test("a model may become a folder and a file again: a flat name of ours gives way, somebody else's does not", async () => {
  await using box = await sandbox()
  const train = (files: Record<string, string>) => {
    rmSync(box.path('work'), { recursive: true, force: true })
    return trainAndPublish(box.dir, files, { models: Object.keys(files), globs: ['**'] })
  }
  const folder = { 'model/a.pb': 'folder', 'model/b.pb': 'folder' }
  await train({ model: 'file' })
  await train(folder)
  const asFolder = readlinkSync(box.path('model'))
  await train({ model: 'file again' })
  const asFile = readFileSync(box.path('model'), 'utf8')
  rmSync(box.path('model'))
  writeFileSync(box.path('model'), 'mine')
  const error = (await rejection(train(folder))) as TrainerError

  assert.equal([asFolder, asFile], ['current/model', 'file again'])
  assert.match(error.message, /^Cannot publish model in \S+: a file has its place; move it away$/)
  assert.is(readFileSync(box.path('model'), 'utf8'), 'mine')
})

test('what was published without generations becomes the first one, as it is', async () => {
  await using box = await sandbox()
  publishFlatFiles(box.dir, { 'w.bin': 'weights', 'core.onnx': withData('old') })
  const inode = statSync(box.path('core.onnx')).ino

  await startAgain(box.dir)

  const { metadata } = readManifest(box.dir)
  assert.is(readlinkSync(box.path('current')), 'generations/1')
  assert.is(statSync(box.path('current/core.onnx')).ino, inode)
  assert.equal(
    [metadata.trained_at, metadata.performance_metrics, metadata.adopted],
    ['2026-01-02T03:04:05.000Z', { auc: 0.9 }, []],
  )
  assert.equal((await checkPublished(box.dir, globs)).adopt, [])
})

test('what was published without generations and is damaged goes with the first generation', async () => {
  await using box = await sandbox()
  publishFlatFiles(box.dir, { 'w.bin': 'weights', 'core.onnx': withData('old'), 'shard.onnx': onnxModel() })
  truncateSync(box.path('w.bin'), 0)
  await startAgain(box.dir)

  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })

  assert.equal(filesBelow(box.dir), ['core.onnx', 'manifest.json', 'w.bin'])
  assert.is(statSync(box.path('w.bin')).size, 0, 'what somebody has changed is not ours to delete')
})

test("an operator's own model in the place of a flat name becomes a generation, and can be undone", async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer: 'ours' }) })
  const theirs = onnxModel({ producer: 'theirs' })
  writeFileSync(box.path('new'), theirs)
  renameSync(box.path('new'), box.path('core.onnx'))
  const before = await checkPublished(box.dir, globs)

  await startAgain(box.dir)

  assert.equal([before.missing, before.foreign], [false, ['core.onnx']])
  assert.is(readlinkSync(box.path('current')), 'generations/2')
  assert.equal(readManifest(box.dir).files, { 'core.onnx': sha256Of(theirs) })
  assert.equal(readManifest(box.dir).metadata.adopted, ['core.onnx'])
  assert.ok(readFileSync(box.path('generations/1/core.onnx')).equals(onnxModel({ producer: 'ours' })))
  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx as adopted, not trained here')
})

test('a model that globs no longer mean loses its flat name, and what it alone needs', async () => {
  await using box = await sandbox()
  const models = ['core.onnx', 'x/a.pb', 'x/b.pb', 'y/aux.onnx']
  const files = { 'x/a.pb': 'a', 'x/b.pb': 'b', 'core.onnx': onnxModel() }
  const aux = { 'y/aux.onnx': withData('aux'), 'y/w.bin': 'weights' }
  await trainAndPublish(box.dir, { ...files, ...aux }, { models, globs: ['**'] })
  const before = readdirSync(box.dir).sort()

  await startAgain(box.dir, ['core.onnx'])

  assert.equal(before, ['core.onnx', 'current', 'generations', 'manifest.json', 'work', 'x', 'y'])
  assert.equal(readdirSync(box.dir).sort(), ['core.onnx', 'current', 'generations', 'manifest.json', 'work'])
  assert.equal(Object.keys(readManifest(box.dir).files), ['core.onnx'])
  assert.ok(existsSync(box.path('current/y/aux.onnx')))
  assert.equal((await verifyPublished(box.dir, ['core.onnx'])).differences, [])
  assert.is((await checkPublished(box.dir, ['core.onnx'])).reason, 'core.onnx as published')
})

test("an operator's own model keeps its place among the models: consumers load the first", async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'a.onnx': onnxModel(), 'b.onnx': onnxModel() })
  rmSync(box.path('a.onnx'))
  writeFileSync(box.path('a.onnx'), onnxModel({ producer: 'theirs' }))

  await startAgain(box.dir)

  const { model_file, models, adopted } = readManifest(box.dir).metadata
  assert.equal([model_file, models, adopted], ['a.onnx', ['a.onnx', 'b.onnx'], ['a.onnx']])
})

test("an operator's own model that was carried over into a generation that is not accepted stays valid", async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel(), 'mine.onnx': onnxModel() })
  writeFileSync(box.path('new'), onnxModel({ producer: 'theirs' }))
  renameSync(box.path('new'), box.path('mine.onnx'))
  await startAgain(box.dir)
  const accept = async () => {
    throw new TrainerError('not-accepted', 'worse')
  }
  const next = { 'core.onnx': onnxModel({ producer: 'worse' }) }
  await rejection(trainAndPublish(box.dir, next, { options: { accept } }))

  const { missing, reason } = await checkPublished(box.dir, globs)

  assert.is(statSync(box.path('candidate/mine.onnx')).ino, statSync(box.path('mine.onnx')).ino)
  assert.equal([missing, reason], [false, 'core.onnx as published, mine.onnx as adopted, not trained here'])
  assert.equal((await verifyPublished(box.dir, globs)).differences, [])
})

test('a flat name that is gone, or has a file of no use, is put back as published', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })
  const notes: string[] = []
  for (const spoil of [
    () => rmSync(box.path('core.onnx')),
    () => {
      rmSync(box.path('core.onnx'))
      writeFileSync(box.path('core.onnx'), 'garbage')
    },
    () => rmSync(box.path('manifest.json')),
  ]) {
    spoil()
    notes.push(...(await startAgain(box.dir)))
    assert.is(statSync(box.path('core.onnx')).ino, statSync(box.path('generations/1/core.onnx')).ino)
    assert.is(statSync(box.path('manifest.json')).ino, statSync(box.path('generations/1/manifest.json')).ino)
  }

  assert.equal(notes, [`core.onnx in ${box.dir} was no model that can be used; it is put back as published`])
})

test('a published file with a name that is not ours is no model; one that a moved file has kept is removed', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })
  linkSync(box.path('core.onnx'), box.path('work/core.onnx'))
  const doubled = await checkPublished(box.dir, globs)
  await startAgain(box.dir)
  const mended = await checkPublished(box.dir, globs)
  linkSync(box.path('core.onnx'), box.path('elsewhere'))
  const linked = await checkPublished(box.dir, globs)

  assert.match(doubled.reason, /has 3 hard links, so it can change under another name$/)
  assert.equal([mended.missing, existsSync(box.path('work/core.onnx'))], [false, false])
  assert.match(linked.reason, /has 3 hard links/)
})

test('recover() goes on with a switch that was cut off, if the generation is whole', async () => {
  await using box = await sandbox()
  for (const producer of ['a', 'b']) await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer }) })
  symlinkSync('generations/1', box.path('current.next'))
  await startAgain(box.dir)
  const forward = readlinkSync(box.path('current'))
  for (const target of ['generations/9', '/etc', 'generations/../..']) {
    symlinkSync(target, box.path('current.next'))
    await startAgain(box.dir)
  }

  assert.is(forward, 'generations/1')
  assert.is(readlinkSync(box.path('current')), 'generations/1')
  assert.ok(readFileSync(box.path('core.onnx')).equals(onnxModel({ producer: 'a' })))
  assert.not(existsSync(box.path('current.next')))
})

test('recover() removes generations that are not whole, and what was to become one', async () => {
  await using box = await sandbox()
  for (const producer of ['a', 'b']) await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer }) })
  rmSync(box.path('generations/1/core.onnx'))
  writeFiles(box.path('generations/next'), { 'core.onnx': 'half' })

  await startAgain(box.dir)

  assert.equal(readdirSync(box.path('generations')), ['2'])
})

test('recover() uses the flat files where current leads nowhere, and refuses a folder in its place', async () => {
  await using box = await sandbox()
  publishFlatFiles(box.path('core'), { 'core.onnx': onnxModel() })
  symlinkSync('generations/7', box.path('core/current'))
  await startAgain(box.path('core'))
  mkdirSync(box.path('dpi/current'), { recursive: true })

  assert.is(readlinkSync(box.path('core/current')), 'generations/1')
  assert.match(
    ((await rejection(startAgain(box.path('dpi')))) as Error).message,
    /current is a folder, expected a link/,
  )
})

test('recover() refuses, and leaves alone, what somebody has put in the place of current or generations', async () => {
  await using box = await sandbox({
    'file/current': 'mine',
    'file/core.onnx': onnxModel(),
    'below/generations': 'mine',
    'elsewhere/1/core.onnx': onnxModel(),
    'linked/core.onnx': onnxModel(),
  })
  symlinkSync('../elsewhere', box.path('linked/generations'))
  const faults: string[] = []
  for (const job of ['file', 'below', 'linked'])
    faults.push(((await rejection(startAgain(box.path(job)))) as Error).message)

  assert.equal(faults, [
    `${box.path('file/current')} is a file, expected a link; move it away`,
    `${box.path('below/generations')} is a file, expected a folder; move it away`,
    `${box.path('linked/generations')} is a link, expected a folder; move it away`,
  ])
  assert.is(readFileSync(box.path('file/current'), 'utf8'), 'mine')
  assert.is(readFileSync(box.path('below/generations'), 'utf8'), 'mine')
})

test('after a rollback the next model replaces the one that is back: to it leads the next rollback, and it is kept', async () => {
  await using box = await sandbox()
  const train = (producer: string) => trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer }) })
  await train('good')
  await train('bad')
  await rollBack('core', box.dir, generationOf(box.dir, 1))
  await train('next')
  const { number } = formerGeneration('core', box.dir)
  await startAgain(box.dir)
  const there = readdirSync(box.path('generations')).sort()
  await rollBack('core', box.dir, formerGeneration('core', box.dir))

  assert.is(number, 1)
  assert.equal(there, ['1', '3'])
  assert.ok(readFileSync(box.path('core.onnx')).equals(onnxModel({ producer: 'good' })))
})

test("a rollback does not take the place of an operator's own model that is in no generation", async () => {
  await using box = await sandbox()
  const train = (files: Record<string, Buffer>) =>
    trainAndPublish(box.dir, files, { options: { keepGenerations: 5 } })
  await train({ 'core.onnx': onnxModel({ producer: 'a' }), 'more.onnx': onnxModel() })
  await train({ 'core.onnx': onnxModel({ producer: 'b' }) })
  const theirs = onnxModel({ producer: 'theirs' })
  const refusals: TrainerError[] = []
  for (const name of ['core.onnx', 'more.onnx']) {
    rmSync(box.path(name), { force: true })
    writeFileSync(box.path(name), theirs)
    refusals.push(await failure(() => rollBack('core', box.dir, generationOf(box.dir, 1))))
    if (name === 'more.onnx') rmSync(box.path(name))
    else await startAgain(box.dir, globs, 5)
  }
  await rollBack('core', box.dir, generationOf(box.dir, 1))

  assert.equal(
    refusals.map(({ exitCode }) => exitCode),
    [3, 3],
  )
  assert.match(
    refusals[0]!.message,
    /^Cannot roll back core: \S+\/core\.onnx is an operator's own model .*; start a run once, .* or move it away$/,
  )
  assert.match(refusals[1]!.message, /\/more\.onnx is an operator's own model/)
  assert.ok(readFileSync(box.path('generations/3/core.onnx')).equals(theirs))
  assert.ok(readFileSync(box.path('core.onnx')).equals(onnxModel({ producer: 'a' })))
})

test('a rollback to the generation that is current is refused before anything is said of it', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })

  const error = await failure(() => assertReturnable('core', box.dir, generationOf(box.dir, 1)))

  assert.is(error.exitCode, 64)
  assert.match(error.message, /generation 1 is current; name another by --to$/)
})

test('a training that makes what is published already makes no other generation, unless that is damaged or says more', async () => {
  await using box = await sandbox()
  const train = (producer: string, reported = {}) =>
    trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer }) }, { reported, seconds: Math.random() })
  const there = () => readdirSync(box.path('generations')).sort()
  await train('first')
  await train('second')
  const [again] = await train('second')
  const afterAgain = there()
  await train('second', { performance_metrics: { recall: 0.9 } })
  const afterFigures = there()
  writeFileSync(box.path('current/core.onnx'), onnxModel({ producer: 'damage' }))
  await train('second', { performance_metrics: { recall: 0.9 } })

  assert.equal([again?.generation, afterAgain], [2, ['1', '2']])
  assert.equal(afterFigures, ['2', '3'])
  assert.is(readlinkSync(box.path('current')), 'generations/4')
  assert.ok(readFileSync(box.path('core.onnx')).equals(onnxModel({ producer: 'second' })))
  assert.not(existsSync(box.path('generations/next')))
})

test('a training that makes the same again is known, though its data got another name in the generation before', async () => {
  await using box = await sandbox()
  const [first, second] = ['first', 'second'].map(it => ({ 'core.onnx': withData(it), 'w.bin': it }))
  const there = () => readdirSync(box.path('generations')).sort()
  await trainAndPublish(box.dir, first!)
  await trainAndPublish(box.dir, second!)
  const { relocated } = readManifest(box.dir).metadata
  const [again] = await trainAndPublish(box.dir, second!)
  const afterAgain = there()
  const published = readManifest(box.dir).files
  await trainAndPublish(box.dir, { ...second!, 'w.bin': 'third' })
  const otherData = there()
  const path = box.path('current/manifest.json')
  const manifest = readManifest(box.dir)
  delete manifest.metadata.relocated
  writeFileSync(path, JSON.stringify(manifest))
  await trainAndPublish(box.dir, { ...second!, 'w.bin': 'third' })

  assert.equal(relocated, { 'core.onnx': sha256Of(second!['core.onnx']) })
  assert.equal(afterAgain, ['1', '2'])
  assert.equal([again?.sha256, again?.data[0]?.name], [published['core.onnx'], 'w-2.bin'])
  assert.equal(otherData, ['2', '3'])
  assert.is(readlinkSync(box.path('current')), 'generations/4')
})

test('what a training gave a model stays in the manifest when that is written anew for its times', async () => {
  await using box = await sandbox()
  for (const it of ['first', 'second'])
    await trainAndPublish(box.dir, { 'core.onnx': withData(it), 'w.bin': it })
  const { relocated } = readManifest(box.dir).metadata
  utimesSync(box.path('core.onnx'), 1, 1)

  await startAgain(box.dir)

  const { metadata } = readManifest(box.dir)
  assert.is((metadata.mtimes_ns as Record<string, string>)['core.onnx'], '1000000000')
  assert.equal(metadata.relocated, relocated)
})

test('generations of a version that did not note what they replace are former ones by their numbers', async () => {
  await using box = await sandbox()
  for (const producer of ['a', 'b', 'c'])
    await trainAndPublish(
      box.dir,
      { 'core.onnx': onnxModel({ producer }) },
      { options: { keepGenerations: 5 } },
    )
  for (const number of [2, 3]) {
    const path = box.path(`generations/${number}/manifest.json`)
    const manifest = JSON.parse(readFileSync(path, 'utf8'))
    manifest.metadata.replaces = undefined
    writeFileSync(path, JSON.stringify(manifest))
  }

  assert.is(formerGeneration('core', box.dir).number, 2)
  assert.equal(formerGenerations(box.dir, generationOf(box.dir, 3)), [2, 1])
})

test('a manifest that is written can be read back, and one that could not is refused', async () => {
  await using box = await sandbox()
  const describing = (count: number) => {
    const names = Array.from({ length: count }, (_, index) => `${'d'.repeat(200)}/${index}`)
    const entry = { sha256: sha256Of('x'), bytes: 1, mtimeNs: '1' }
    const entries = new Map(names.map(name => [name, entry]))
    return composeManifest({
      job: 'core',
      globs,
      models: names,
      entries,
      metadata: {},
      replaces: undefined,
      adopted: [],
    })
  }

  await writeManifest(box.path('manifest.json'), describing(3_000))
  const error = (await rejection(writeManifest(box.path('b.json'), describing(10_000)))) as TrainerError

  assert.is(Object.keys(readBack(box.dir)?.files ?? {}).length, 3_000)
  assert.is(error.code, 'training-failed')
  assert.match(error.message, /^Cannot publish 10000 files: their manifest would have .*at most 4.* are read/)
  assert.not(existsSync(box.path('b.json')))
})

test('publish() gives a model the mode of the one before, or that of a new file, and no folder less than its job has', async () => {
  await using box = await sandbox({ 'core/work/x': 1 })
  const job = box.path('core')
  chmodSync(job, 0o755)
  const publishMode = async (mode: number) => {
    writeFiles(`${job}/work`, { 'core.onnx': onnxModel({ producer: String(mode) }) })
    chmodSync(`${job}/work/core.onnx`, mode)
    await trainAndPublish(job, {}, { models: ['core.onnx'] })
    return (statSync(`${job}/core.onnx`).mode & 0o777).toString(8)
  }

  const first = await publishMode(0o600)
  chmodSync(`${job}/core.onnx`, 0o640)
  const second = await publishMode(0o600)

  assert.equal([first, second], [(0o666 & ~process.umask()).toString(8), '640'])
  assert.is(statSync(`${job}/current`).mode & 0o777, 0o755)
})

test('a folder of flat names is as readable as that of its job, whatever the umask', async () => {
  await using box = await sandbox({ 'core/work/x': 1 })
  const job = box.path('core')
  chmodSync(job, 0o755)
  const umask = process.umask(0o077)
  try {
    await trainAndPublish(job, { 'sub/deep/core.onnx': onnxModel() })
  } finally {
    process.umask(umask)
  }

  const modes = ['sub', 'sub/deep', 'current/sub', 'current/sub/deep'].map(
    name => statSync(`${job}/${name}`).mode & 0o777,
  )
  assert.equal(modes, [0o755, 0o755, 0o755, 0o755])
})

skipUnless(
  test,
  isRoot,
  'needs root',
)('publish() gives a model to the group of the models folder', async () => {
  await using box = await sandbox({ 'core/work/x': 1 })
  chownSync(box.dir, 0, 4242)

  await trainAndPublish(box.path('core'), { 'core.onnx': onnxModel() })

  const gids = ['core.onnx', 'manifest.json', 'current'].map(name => statSync(box.path('core', name)).gid)
  assert.equal(gids, [4242, 4242, 4242])
})

test('what may not have the group of the models folder has its mode nevertheless', async () => {
  await using box = await sandbox({ 'core/model.onnx': 1 })
  const path = box.path('core/model.onnx')
  chmodSync(path, 0o600)
  if (isRoot) {
    chmodSync(box.dir, 0o755)
    chownSync(box.dir, 0, 4242)
    chownSync(path, 65534, 65534)
  }

  await asNobody(async () => share(box.path('core'), path, 0o644))

  assert.is(statSync(path).mode & 0o777, 0o644)
})

skipUnless(
  inSweep,
  canTrace,
  'needs strace (Debian package strace)',
)("an operator's own model is taken along as a copy where the system knows no links", async () => {
  await using box = await sandbox({ 'mine.onnx': onnxModel({ producer: 'theirs' }) })
  writeFiles(box.path('work'), { 'core.onnx': onnxModel() })

  const start = withoutLinks('ENOSYS', 'start', box.dir, ...globs)
  const publish = withoutLinks('ENOSYS', 'publish', box.dir, 'core.onnx')

  assert.equal([start.status, publish.status, publish.stderr], [0, 0, ''])
  assert.equal(readManifest(box.dir).metadata.models, ['core.onnx', 'mine.onnx'])
  assert.is((await checkPublished(box.dir, globs)).missing, false)
})

/** Run the publisher on a filesystem that answers so to every link. */
function withoutLinks(errno: string, ...command: string[]) {
  const tracing = ['-f', '-qq', '-o', '/dev/null', '-e', 'trace=link,symlink,linkat,symlinkat']
  const faults = ['-e', `inject=link,symlink,linkat,symlinkat:error=${errno}`]
  const program = [process.execPath, ...programOf('test/support/publisher.ts')]
  return spawnSync('strace', [...tracing, ...faults, ...program, ...command], { encoding: 'utf8' })
}

skipUnless(
  inSweep,
  canTrace,
  'needs strace (Debian package strace)',
)('on a filesystem without links a model is published file by file, and a run says so', async () => {
  await using box = await sandbox()
  const publish = (producer: string) => {
    writeFiles(box.path('work'), { 'core.onnx': withData(producer), 'w.bin': producer })
    return withoutLinks('EPERM', 'publish', box.dir, 'core.onnx') // as vfat answers
  }

  const first = publish('first')
  const second = publish('second')
  const before = filesBelow(box.dir)
  await startAgain(box.dir)

  assert.equal([first.status, second.status, second.stderr], [0, 0, ''])
  assert.match(second.stdout, /has no links, so models are published file by file/)
  assert.equal(before, ['core.onnx', 'manifest.json', 'w-1.bin', 'w.bin'])
  assert.equal(filesBelow(box.dir), ['core.onnx', 'manifest.json', 'w-1.bin'])
  assert.is(readFileSync(box.path('w-1.bin'), 'utf8'), 'second')
  assert.not(existsSync(box.path('current')))
  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx as published')
})

test.run()
