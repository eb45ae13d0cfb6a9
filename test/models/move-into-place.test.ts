import { readdirSync, readFileSync, symlinkSync } from 'node:fs'
import * as assert from 'uvu/assert'
import type { TrainerError } from '../../lib/errors.ts'
import { checkPublished } from '../../lib/models.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { facts, readManifest, rejection, sha256Of, snapshot, trainAndPublish } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const { globs } = facts

test('publish() refuses external data whose name other content has, and takes the same content', async () => {
  await using box = await sandbox()
  const model = (producer: string) => onnxModel({ producer, external: [{ location: 'w.bin' }] })
  await trainAndPublish(box.dir, { 'core.onnx': model('old'), 'w.bin': 'old' })
  const before = snapshot(box.dir)

  const error = await rejection(trainAndPublish(box.dir, { 'core.onnx': model('new'), 'w.bin': 'new' }))
  const after = snapshot(box.dir)
  await trainAndPublish(box.dir, { 'core.onnx': model('new'), 'w.bin': 'old' })

  assert.is((error as TrainerError).code, 'training-failed')
  assert.match(
    (error as TrainerError).message,
    /w\.bin.*give external data a new name each time, or remove that model$/,
  )
  assert.equal(after, before)
  assert.equal(readManifest(box.dir).files, { 'w.bin': sha256Of('old'), 'core.onnx': sha256Of(model('new')) })
})

test('publish() refuses a model in the place of external data that another model needs', async () => {
  await using box = await sandbox()
  const old = onnxModel({ external: [{ location: 'data.onnx' }] })
  await trainAndPublish(
    box.dir,
    { 'core.onnx': old, 'data.onnx': onnxModel() },
    { models: ['core.onnx'], globs: ['core.onnx'] },
  )
  const before = snapshot(box.dir)

  const files = { 'data.onnx': onnxModel({ producer: 'new' }) }
  const error = await rejection(trainAndPublish(box.dir, files, { globs: ['core.onnx'] }))

  assert.match((error as TrainerError).message, /data\.onnx/)
  assert.equal(snapshot(box.dir), before)
})

test('publish() refuses to replace a folder, and to go through a link', async () => {
  await using box = await sandbox({ 'a/core.onnx/x': 1, 'b/x': 1, 'elsewhere/x': 1 })
  symlinkSync('../elsewhere', box.path('b/sub'))

  const folder = await rejection(trainAndPublish(box.path('a'), { 'core.onnx': onnxModel() }))
  const link = await rejection(trainAndPublish(box.path('b'), { 'sub/core.onnx': onnxModel() }))

  assert.match((folder as TrainerError).message, /has a folder of that name; move it away$/)
  assert.is((link as TrainerError).code, 'storage')
  assert.equal(readdirSync(box.path('elsewhere')), ['x'])
})

test('publish() replaces a link in the place of a model, not what it leads to', async () => {
  await using box = await sandbox({ precious: 'precious', 'core/x': 1 })
  symlinkSync('../precious', box.path('core/core.onnx'))

  await trainAndPublish(box.path('core'), { 'core.onnx': onnxModel() })

  assert.is(readFileSync(box.path('precious'), 'utf8'), 'precious')
  assert.is((await checkPublished(box.path('core'), globs)).missing, false)
})

test.run()
