import { readdirSync, readFileSync, symlinkSync } from 'node:fs'
import * as assert from 'uvu/assert'
import type { TrainerError } from '../../lib/errors.ts'
import { checkPublished } from '../../lib/models.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { facts, rejection, snapshot, trainAndPublish } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const { globs } = facts

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
