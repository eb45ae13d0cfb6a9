import * as assert from 'uvu/assert'
import { isSweep } from '../support/places.ts'
import { trainAndPublish, writeFiles } from '../support/publishing.ts'
import { readSetWhile, readWhile } from '../support/read-while.ts'
import { sandbox } from '../support/sandbox.ts'
import { inSweep, sampled, test } from '../support/test.ts'
import { versionOf } from '../support/versions.ts'

inSweep('a reader gets old or new models, never half of one, while they are published', async () => {
  await using box = await sandbox()
  const publishVersion = async (version: number) => {
    const { model, dataName, data } = versionOf(version)
    // A run publishes once: no reader is so slow that two go by while it opens a model.
    const options = { keepGenerations: 25 }
    await trainAndPublish(box.dir, { 'core.onnx': model, [dataName]: data }, { options })
  }
  await publishVersion(1)

  const seen = await readWhile(box.dir, async () => {
    for (let version = 2; version <= (isSweep ? 25 : 12); version++) await publishVersion(version)
  })

  assert.is(seen.torn, 0)
  assert.ok(seen.versions >= (isSweep ? 5 : 3), `only ${seen.versions} versions seen in ${seen.whole} reads`)
})

sampled(
  'a reader of a set of 21 files never gets some of two trainings, while more are published',
  async () => {
    await using box = await sandbox()
    const shards = Array.from({ length: 20 }, (_, index) => `model-${index}.safetensors`)
    const names = [...shards, 'index.json']
    const publishSet = (version: number) => {
      const content = `${version} `.padEnd(20_000, 'x')
      return trainAndPublish(box.dir, Object.fromEntries(names.map(name => [name, content])), {
        models: names,
        globs: ['*'],
      })
    }
    await publishSet(0)

    const seen = await readSetWhile(box.dir, names, async () => {
      for (let version = 1; version <= (isSweep ? 20 : 5); version++) await publishSet(version)
    })

    assert.is(seen.mixed, 0)
    assert.ok(
      seen.versions >= (isSweep ? 5 : 2),
      `only ${seen.versions} versions seen in ${seen.whole} reads, ${seen.gone} without a set`,
    )
  },
)

inSweep('a reader gets halves of models that are written in place (the naive way)', async () => {
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
