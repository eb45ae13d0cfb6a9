import * as assert from 'uvu/assert'
import { isSweep } from '../support/places.ts'
import { trainAndPublish, writeFiles } from '../support/publishing.ts'
import { readWhile } from '../support/read-while.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'
import { versionOf } from '../support/versions.ts'

test('a reader gets old or new models, never half of one, while they are published', async () => {
  await using box = await sandbox()
  const publishVersion = async (version: number) => {
    const { model, dataName, data } = versionOf(version)
    await trainAndPublish(box.dir, { 'core.onnx': model, [dataName]: data })
  }
  await publishVersion(1)

  const seen = await readWhile(box.dir, async () => {
    for (let version = 2; version <= (isSweep ? 25 : 12); version++) await publishVersion(version)
  })

  assert.is(seen.torn, 0)
  assert.ok(seen.versions >= (isSweep ? 5 : 3), `only ${seen.versions} versions seen in ${seen.whole} reads`)
})

test('a reader gets halves of models that are written in place (the naive way)', async () => {
  await using box = await sandbox()
  const writeVersion = (version: number) => {
    const { model, dataName, data } = versionOf(version)
    writeFiles(box.dir, { [dataName]: data, 'core.onnx': model })
  }
  writeVersion(1)

  const seen = await readWhile(box.dir, async () => {
    for (let version = 2; version <= (isSweep ? 100 : 40); version++) writeVersion(version)
  })

  assert.ok(seen.torn > 0, `${seen.whole} whole reads`)
})

test.run()
