/** Models of very many files: a signal ends their publication at once, and nobody drowns in their names. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { adopt } from '../../lib/models/adopt.ts'
import { judgeModel } from '../../lib/models/judge.ts'
import { publish } from '../../lib/models/publish.ts'
import { publishFlat } from '../../lib/models/publish-flat.ts'
import { stageModels } from '../../lib/models/stage.ts'
import { checkPublished } from '../../lib/models.ts'
import { describeEvent } from '../../lib/run/event-text.ts'
import { readEvents } from '../../lib/run/past-events.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { isSweep } from '../support/places.ts'
import {
  facts,
  filesBelow,
  publishFlatFiles,
  rejection,
  sha256Of,
  snapshot,
  startAgain,
  trainAndPublish,
  writeFiles,
} from '../support/publishing.ts'
import { trainerRig } from '../support/rig.ts'
import { type Sandbox, sandbox, until } from '../support/sandbox.ts'
import { inSweep, sampled, test } from '../support/test.ts'

const interruption = new TrainerError('sigterm', 'interrupted by SIGTERM')

/** A signal that comes just before it is looked at for the `nth` time. */
function signalAt(nth: number): { signal: AbortSignal; hasCome: () => boolean } {
  const { signal } = new AbortController()
  let looks = 0
  const throwIfAborted = () => {
    if (++looks >= nth) throw interruption
  }
  return { signal: Object.assign(signal, { throwIfAborted }), hasCome: () => looks >= nth }
}

/** A published model, one of an operator's beside it, and in `work/` the next one, whose data has new content. */
async function prepared(): Promise<Sandbox> {
  const box = await sandbox({ 'own.onnx': onnxModel({ producer: 'own' }) })
  await adopt(box.dir, 'core', (await checkPublished(box.dir, facts.globs)).adopt, facts.globs)
  await trainAndPublish(box.dir, setOf('old'))
  writeFiles(box.path('work'), setOf('new'))
  return box
}

function setOf(producer: string): Record<string, Buffer | string> {
  const external = [{ location: 'w.bin' }]
  return {
    'core.onnx': onnxModel({ producer, external }),
    'w.bin': producer,
    'sub/x.onnx': onnxModel({ producer }),
  }
}

const names = ['core.onnx', 'sub/x.onnx']

sampled(
  'publish() is ended by a signal wherever that comes before the switch, and nothing is half',
  async () => {
    let nth = 1
    for (let isPublished = false; !isPublished; nth += isSweep ? 1 : 6) {
      await using box = await prepared()
      const before = snapshot(box.dir)
      const models = await Promise.all(names.map(name => judgeModel(box.path('work'), name)))
      const { signal, hasCome } = signalAt(nth)

      const ended = publish(box.dir, 'core', models, facts, { signal })
      const error = await ended.then(
        () => undefined,
        reason => reason,
      )

      isPublished = !hasCome()
      assert.is(error, isPublished ? undefined : interruption, `at look ${nth}`)
      const left = readdirSync(box.path('generations')).concat(readdirSync(box.dir))
      assert.not(
        left.some(name => name.includes('next')),
        `at look ${nth}: ${left}`,
      )
      if (!isPublished) assert.equal(snapshot(box.dir), before, `at look ${nth}`)
      assert.equal(await startAgain(box.dir), [])
      const { missing, models: valid } = await checkPublished(box.dir, facts.globs)
      assert.equal([missing, valid.length], [false, 3], `at look ${nth}`)
    }
    assert.ok(nth > 20, `${nth} looks`)
  },
)

test('publish() finishes what is current when the signal comes', async () => {
  await using box = await prepared()
  const models = await Promise.all(names.map(name => judgeModel(box.path('work'), name)))
  const controller = new AbortController()

  // The first moment at which a generation has its number.
  const watch = setInterval(() => existsSync(box.path('generations/3')) && controller.abort(interruption), 0)
  const published = await publish(box.dir, 'core', models, facts, { signal: controller.signal })
  clearInterval(watch)

  assert.ok(controller.signal.aborted)
  assert.is(published[0]?.generation, 3)
  assert.ok(filesBelow(box.dir).includes('w-3.bin'))
})

test('publishFlat() is undone by a signal as long as it has replaced nothing, and else finished', async () => {
  const ended: [error: unknown, left: string[]][] = []
  for (const replaced of [{}, { 'core.onnx': onnxModel() }]) {
    await using box = await sandbox()
    if ('core.onnx' in replaced) publishFlatFiles(box.dir, replaced)
    writeFiles(box.path('work'), setOf('new'))
    const models = await Promise.all(names.map(name => judgeModel(box.path('work'), name)))
    const staged = await stageModels(box.dir, 'core', models, facts)

    const error = await publishFlat(box.dir, staged, undefined, signalAt(2).signal).catch(reason => reason)

    ended.push([error, filesBelow(box.dir)])
  }

  assert.equal(ended, [
    [interruption, []],
    [undefined, ['core.onnx', 'manifest.json', 'sub/x.onnx', 'w.bin']],
  ])
})

test('judgeModel() gives a signal its turn while it looks at thousands of files', async () => {
  const locations = Array.from({ length: 3000 }, (_, index) => `${index}.bin`)
  const model = onnxModel({ external: locations.map(location => ({ location })) })
  await using box = await sandbox({ 'a.onnx': model, ...Object.fromEntries(locations.map(it => [it, 1])) })
  const [controller, late] = [new AbortController(), new AbortController()]
  setImmediate(() => controller.abort(interruption))

  const error = await rejection(Promise.resolve(judgeModel(box.dir, 'a.onnx', controller.signal)))
  const { references } = await judgeModel(box.dir, 'a.onnx', late.signal)

  assert.is(error, interruption)
  assert.equal(
    references,
    locations.map(it => box.path(it)),
  )
})

test('publish() refuses more files than a manifest has room for before it has touched one', async () => {
  const folder = [1, 2, 3].map(() => 'd'.repeat(250)).join('/')
  const files = Object.fromEntries(
    Array.from({ length: 1500 }, (_, index) => [`${folder}/${index}.bin`, 'x']),
  )
  await using box = await sandbox()
  writeFiles(box.path('work'), files)
  const models = await Promise.all(Object.keys(files).map(name => judgeModel(box.path('work'), name)))

  const error = await rejection(publish(box.dir, 'core', models, facts))

  assert.instance(error, TrainerError)
  assert.is((error as TrainerError).code, 'training-failed')
  assert.match(
    (error as TrainerError).message,
    /^Cannot publish 1500 files: their manifest would have .*, at most 4.* are read; publish fewer files, or one archive of them$/,
  )
  assert.is(readdirSync(box.path('work', folder)).length, 1500)
  assert.not(existsSync(box.path('generations')))
})

inSweep(
  'SIGTERM ends a run that is publishing thousands of files; nothing is published, and the next start is whole',
  async () => {
    const trainer = `for (let n = 0; n < 4000; n++) fs.writeFileSync(dir + '/' + n + '.bin', 'x')`
    await using rig = await trainerRig({ core: { maxDiskMb: 100, models: ['*.bin'], trainer } })
    const run = rig.start(['core', '--json'])
    const made = (name: string) => join(rig.modelsDir, 'core', name)
    await until('it publishes', () => existsSync(made('generations/next')))

    run.child.kill('SIGTERM')
    const { exitCode, events } = await run.ended

    assert.is(exitCode, 143)
    const last = events.at(-1)
    assert.is(last?.event === 'run.done' && last.message, 'interrupted by SIGTERM')
    assert.not(events.some(it => it.event === 'model.publish'))
    assert.not(existsSync(made('current')))
    assert.equal(readdirSync(made('generations')), [])
  },
)

inSweep(
  'the event of a model with very many files of external data is a line that can be read back',
  async () => {
    const locations = Array.from({ length: 100 }, (_, index) => `${index}${'.bin'.repeat(50)}`)
    await using rig = await trainerRig({
      core: {
        trainer: `fs.copyFileSync(dir + '/../../../many.onnx', dir + '/core.onnx')
for (let n = 0; n < 100; n++) fs.writeFileSync(dir + '/' + n + '.bin'.repeat(50), 'x')`,
        sandbox: 'off',
      },
    })
    writeFiles(rig.dir, { 'many.onnx': onnxModel({ external: locations.map(location => ({ location })) }) })

    const { exitCode } = await rig.run(['core'])

    assert.is(exitCode, 0)
    const [event] = [...readEvents(join(rig.modelsDir, '.trainer'))].filter(
      it => it.event === 'model.publish',
    )
    if (event?.event !== 'model.publish') throw new Error('is not in the journal')
    const { data, moreData = 0 } = event
    assert.equal(data[0], { name: locations[0], bytes: 1, sha256: sha256Of('x') })
    assert.ok(data.length > 40 && data.length + moreData === 100, `${data.length} and ${moreData}`)
    assert.match(describeEvent(event), new RegExp(`; and ${moreData} more files of data\\)$`))
  },
)

test.run()
