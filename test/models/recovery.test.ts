import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { recover } from '../../lib/models/recovery.ts'
import { checkPublished } from '../../lib/models.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { facts, rejection, trainAndPublish } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const { globs } = facts

test('recover() finishes a publication that was cut off between its files', async () => {
  await using box = await sandbox()
  const external = [{ location: 'w.bin' }]
  await trainAndPublish(box.dir, {
    'core.onnx': onnxModel({ external }),
    'w.bin': 'weights',
    'sub/x.onnx': onnxModel(),
  })
  renameSync(box.path('manifest.json'), box.path('manifest.json.next'))
  renameSync(box.path('core.onnx'), box.path('work/core.onnx'))
  renameSync(box.path('sub/x.onnx'), box.path('work/sub/x.onnx'))

  await recover(box.dir)

  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx, sub/x.onnx as published')
  assert.not(existsSync(box.path('manifest.json.next')))
  assert.not(existsSync(box.path('work/core.onnx')))
})

test('recover() drops a publication whose files are gone or changed, and what was published stays', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.path('next'), { 'core.onnx': onnxModel({ producer: 'next' }) })
  await trainAndPublish(box.path('core'), { 'core.onnx': onnxModel() })

  for (const content of [undefined, onnxModel({ producer: 'else' })]) {
    writeFileSync(box.path('core/manifest.json.next'), readFileSync(box.path('next/manifest.json')))
    if (content) writeFileSync(box.path('core/work/core.onnx'), content)
    await recover(box.path('core'))
    assert.not(existsSync(box.path('core/manifest.json.next')))
    assert.is((await checkPublished(box.path('core'), globs)).reason, 'core.onnx as published')
  }
})

test('recover() refuses a folder in the place of the manifest, before anything is trained in vain', async () => {
  await using box = await sandbox({ 'manifest.json/file': 1 })

  const error = await rejection(recover(box.dir))

  assert.instance(error, TrainerError)
  assert.is((error as TrainerError).code, 'storage')
  assert.match((error as TrainerError).message, `${box.path('manifest.json')} is a folder, expected a file`)
})

test('recover() removes a next manifest that is half written, or a link', async () => {
  await using box = await sandbox({ precious: 'precious' })
  await trainAndPublish(box.path('core'), { 'core.onnx': onnxModel() })
  const next = box.path('core/manifest.json.next')

  writeFileSync(next, readFileSync(box.path('core/manifest.json'), 'utf8').slice(0, -20))
  await recover(box.path('core'))
  const half = existsSync(next)
  symlinkSync('../precious', next)
  await recover(box.path('core'))

  assert.is(half, false)
  assert.is(existsSync(next), false)
  assert.is(readFileSync(box.path('precious'), 'utf8'), 'precious')
  assert.is((await checkPublished(box.path('core'), globs)).reason, 'core.onnx as published')
})

test('recover() removes external data of replaced models, unless another model needs it', async () => {
  await using box = await sandbox()
  const model = (location: string) => onnxModel({ external: [{ location }] })
  for (const name of ['w-1.bin', 'w-2.bin'])
    await trainAndPublish(box.dir, { 'core.onnx': model(name), [name]: name })
  writeFileSync(box.path('own.onnx'), model('w-1.bin'))

  await recover(box.dir)
  const kept = existsSync(box.path('w-1.bin'))
  rmSync(box.path('own.onnx'))
  await recover(box.dir)
  const left = existsSync(box.path('w-1.bin'))
  writeFileSync(box.path('w-1.bin'), "an operator's")
  await recover(box.dir)

  assert.equal([kept, left], [true, false])
  assert.ok(existsSync(box.path('w-1.bin')), 'a name is free for others once its data is removed')
  assert.is((await checkPublished(box.dir, globs)).reason, 'core.onnx as published')
})

test('recover() removes nothing through a folder that has become a link', async () => {
  await using box = await sandbox()
  const model = (location: string) => onnxModel({ external: [{ location }] })
  for (const name of ['data/w-1.bin', 'w-2.bin']) {
    await trainAndPublish(box.path('core'), { 'core.onnx': model(name), [name]: name })
  }
  renameSync(box.path('core/data'), box.path('elsewhere'))
  symlinkSync('../elsewhere', box.path('core/data'))

  await recover(box.path('core'))

  assert.is(readFileSync(box.path('elsewhere/w-1.bin'), 'utf8'), 'data/w-1.bin')
})

test('recover() has nothing to do in a folder that is new or missing', async () => {
  await using box = await sandbox({ 'core/work/core.onnx': onnxModel() })

  await recover(box.path('core'))
  await recover(box.path('dpi'))

  assert.not(existsSync(box.path('core/manifest.json')))
  assert.not(existsSync(box.path('dpi')))
})

test('recover() says what it cannot remove', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('manifest.json.next'))

  const error = await rejection(recover(box.dir))

  assert.instance(error, TrainerError)
  assert.match(
    (error as TrainerError).message,
    /^Cannot finish the last publication in .*manifest\.json\.next/,
  )
})

test.run()
