import { statSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { adopt } from '../../lib/models/adopt.ts'
import { judgeModel } from '../../lib/models/judge.ts'
import { publish } from '../../lib/models/publish.ts'
import { recover } from '../../lib/models/recovery.ts'
import { checkPublished } from '../../lib/models.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import {
  facts,
  filesBelow,
  readManifest,
  rejection,
  sha256Of,
  snapshot,
  trainAndPublish,
  writeFiles,
} from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const { globs } = facts

test('publish() moves models and external data into place and describes them in the manifest', async () => {
  await using box = await sandbox()
  const core = onnxModel({ external: [{ location: 'data/w.bin' }] })
  const files = { 'core.onnx': core, 'data/w.bin': 'weights', 'sub/extra.onnx': onnxModel() }

  const published = await trainAndPublish(box.dir, files)

  const { metadata, files: hashes } = readManifest(box.dir)
  const mtimes = Object.keys(hashes).map(name => [
    name,
    String(statSync(box.path(name), { bigint: true }).mtimeNs),
  ])
  assert.equal(filesBelow(box.dir), ['core.onnx', 'data/w.bin', 'manifest.json', 'sub/extra.onnx'])
  assert.equal(published, [
    {
      path: box.path('core.onnx'),
      bytes: core.length,
      sha256: sha256Of(core),
      data: [{ name: 'data/w.bin', bytes: 7, sha256: sha256Of('weights') }],
      generation: 1,
      metrics: {},
    },
    {
      path: box.path('sub/extra.onnx'),
      bytes: onnxModel().length,
      sha256: sha256Of(onnxModel()),
      data: [],
      generation: 1,
      metrics: {},
    },
  ])
  assert.equal(
    hashes,
    Object.fromEntries(Object.entries(files).map(([name, content]) => [name, sha256Of(content)])),
  )
  assert.equal(metadata, {
    name: 'core',
    version: '2026-01-02T03:04:05.000Z',
    model_type: 'onnx',
    model_file: 'core.onnx',
    features: [],
    trained_on: 'unknown',
    performance_metrics: {},
    trained_at: '2026-01-02T03:04:05.000Z',
    training_seconds: 12.5,
    models: ['core.onnx', 'sub/extra.onnx'],
    model_globs: globs,
    sizes: { 'core.onnx': core.length, 'data/w.bin': 7, 'sub/extra.onnx': onnxModel().length },
    mtimes_ns: Object.fromEntries(mtimes),
    superseded: [],
    adopted: [],
  })
})

test('publish() keeps what the trainer reported, and wins where both speak', async () => {
  await using box = await sandbox()
  const reported = {
    version: '7',
    features: ['size'],
    performance_metrics: { auc: 0.9 },
    extra: 1,
    name: 'x',
    sizes: 'x',
  }

  const [published] = await trainAndPublish(box.dir, { 'core.onnx': onnxModel() }, { reported })

  const { metadata } = readManifest(box.dir)
  const { version, features, performance_metrics, extra, name, sizes } = metadata
  assert.equal(published?.metrics, { auc: 0.9 })
  assert.equal(
    { version, features, performance_metrics, extra },
    { version: '7', features: ['size'], performance_metrics: { auc: 0.9 }, extra: 1 },
  )
  assert.equal({ name, sizes }, { name: 'core', sizes: { 'core.onnx': onnxModel().length } })
})

test('publish() publishes what this training made, and nothing of the last one', async () => {
  await using box = await sandbox()
  const next = onnxModel({ producer: 'next' })
  await trainAndPublish(box.dir, {
    'core.onnx': onnxModel(),
    'core-1.onnx': onnxModel({ producer: 'other' }),
  })

  await trainAndPublish(box.dir, { 'core.onnx': next })

  assert.equal(readManifest(box.dir).files, { 'core.onnx': sha256Of(next) })
  assert.equal(filesBelow(box.dir), ['core.onnx', 'manifest.json'])
  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx as published')
})

test('publish() no longer lists a model that is not valid any more', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'a.onnx': onnxModel(), 'b.onnx': onnxModel() })
  writeFileSync(box.path('b.onnx'), 'garbage')

  await trainAndPublish(box.dir, { 'a.onnx': onnxModel() })

  assert.equal(Object.keys(readManifest(box.dir).files), ['a.onnx'])
  assert.is((await checkPublished(box.dir, globs)).missing, false)
})

test('publish() takes models of any kind', async () => {
  await using box = await sandbox()

  await trainAndPublish(box.dir, { 'a.pkl': 'opaque' }, { models: ['a.pkl'], globs: ['*.pkl'] })

  const { metadata, files } = readManifest(box.dir)
  assert.equal(files, { 'a.pkl': sha256Of('opaque') })
  assert.equal([metadata.model_type, metadata.model_file], ['other', 'a.pkl'])
})

test('publish() refuses a model that has changed since it was judged', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer: 'old' }) })
  const before = snapshot(box.dir)
  writeFiles(box.path('work'), { 'core.onnx': onnxModel({ producer: 'new' }) })
  const model = await judgeModel(box.path('work'), 'core.onnx')
  writeFiles(box.path('work'), { 'core.onnx': '' })

  const error = await rejection(publish(box.dir, 'core', [model], facts))

  assert.instance(error, TrainerError)
  assert.is((error as TrainerError).code, 'training-failed')
  assert.is((error as TrainerError).message, `Cannot publish ${box.path('work/core.onnx')}: it is empty`)
  assert.equal(snapshot(box.dir), before)
})

test('publish() keeps external data of the replaced model for its readers, until the next start', async () => {
  await using box = await sandbox()
  const model = (location: string) => onnxModel({ external: [{ location }] })
  for (const name of ['w-1.bin', 'w-2.bin']) {
    await trainAndPublish(box.dir, { 'core.onnx': model(name), [name]: name })
  }
  const before = filesBelow(box.dir)

  await recover(box.dir)

  assert.equal(before, ['core.onnx', 'manifest.json', 'w-1.bin', 'w-2.bin'])
  assert.equal(filesBelow(box.dir), ['core.onnx', 'manifest.json', 'w-2.bin'])
})

test("adopt() takes an operator's own model into the manifest, without the old one's figures", async () => {
  await using box = await sandbox()
  const reported = { performance_metrics: { auc: 0.9 } }
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() }, { reported })
  const theirs = onnxModel({ producer: 'theirs' })
  writeFileSync(box.path('core.onnx'), theirs)

  await adopt(box.dir, 'core', (await checkPublished(box.dir, globs)).adopt, globs)

  const { metadata, files } = readManifest(box.dir)
  assert.equal(files, { 'core.onnx': sha256Of(theirs) })
  assert.equal(metadata.performance_metrics, {})
  assert.equal([metadata.adopted, metadata.trained_at], [['core.onnx'], undefined])
  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx as adopted, not trained here')
})

test('a model stays adopted beside one that is trained after it, until it is trained itself', async () => {
  await using box = await sandbox({ 'mine.onnx': onnxModel() })
  await adopt(box.dir, 'core', (await checkPublished(box.dir, globs)).adopt, globs)
  const adopted: unknown[] = []
  for (const name of ['core.onnx', 'mine.onnx']) {
    await trainAndPublish(box.dir, { [name]: onnxModel({ producer: 'trained' }) })
    adopted.push([readManifest(box.dir).metadata.adopted, (await checkPublished(box.dir, globs)).reason])
  }

  assert.equal(adopted, [
    [['mine.onnx'], 'core.onnx as published, mine.onnx as adopted, not trained here'],
    [[], 'mine.onnx as published'],
  ])
})

test('adopt() keeps what is known of a model whose time alone has changed', async () => {
  await using box = await sandbox()
  const reported = { performance_metrics: { auc: 0.9 } }
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() }, { reported })
  writeFileSync(box.path('core.onnx'), onnxModel())

  const { adopt: models } = await checkPublished(box.dir, globs)
  await adopt(box.dir, 'core', models, globs)

  const { performance_metrics, trained_at, adopted } = readManifest(box.dir).metadata
  assert.equal(
    [models.length, performance_metrics, trained_at, adopted],
    [1, { auc: 0.9 }, '2026-01-02T03:04:05.000Z', []],
  )
  assert.equal((await checkPublished(box.dir, globs)).adopt, [])
})

test.run()
