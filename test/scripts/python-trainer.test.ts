import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import * as assert from 'uvu/assert'
import type { QuotaSettings } from '../../lib/quotas.ts'
import { root } from '../support/places.ts'
import { sha256Of } from '../support/publishing.ts'
import { type Rig, survivors, trainerRig } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'

const python = '/usr/bin/python3'
const hasNumpy = spawnSync(python, ['-c', 'import numpy']).status === 0
const needs = 'needs Debian python3-numpy'
const withNumpy = skipUnless(test, hasNumpy, needs)
/** Tests whose subject has another with a smaller training, of Node.js. */
const withNumpyInSweep = skipUnless(inSweep, hasNumpy, needs)

const recipe = (options: string[] = []): Partial<QuotaSettings> => ({
  models: ['*.pkl'],
  prune: ['checkpoint-*'],
  train: [python, 'train.py', '--model-dir', '{outputDir}', '--max-disk-mb', '{maxDiskMb}', ...options],
})

/** A rig whose core is trained by the Python trainer. */
async function pythonRig(quota: Partial<QuotaSettings>): Promise<Rig> {
  const rig = await trainerRig({ core: quota })
  copyFileSync(join(root, 'test', 'fixtures', 'train.py'), rig.path('train.py'))
  return rig
}

const model = (rig: Rig) => rig.path('models', 'core', 'model.pkl')
const outputOf = (rig: Rig) => readFileSync(rig.path('models', '.trainer', 'core.log'), 'utf8')
const checkpointsOf = (rig: Rig) => {
  const work = rig.path('models', 'core', 'work')
  const names = existsSync(work) ? readdirSync(work) : []
  return names.flatMap(name => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? []).map(Number)
}

withNumpy(
  'a Python trainer is run as it is, its pickle published, described and verified; a second start skips',
  async () => {
    await using rig = await pythonRig(recipe())

    const first = await rig.run(['core', '--json'])
    const second = await rig.run(['core', '--json'])
    const verified = await rig.run(['core'], { script: 'scripts/verify.ts' })

    assert.equal([first.exitCode, second.exitCode, verified.exitCode], [0, 0, 0])
    const { metadata, files } = JSON.parse(readFileSync(rig.path('models', 'core', 'manifest.json'), 'utf8'))
    assert.equal(files, { 'model.pkl': sha256Of(readFileSync(model(rig))) })
    assert.equal(
      [metadata.model_type, metadata.model_file, metadata.features.length],
      ['other', 'model.pkl', 32],
    )
    assert.ok(metadata.performance_metrics.accuracy > 0.9)
    assert.equal(checkpointsOf(rig).sort(), [1000, 1500, 2000, 500])
    assert.ok(second.events.some(it => it.event === 'job.skip'))
  },
)

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  withNumpyInSweep(
    `a Python training cut off by ${signal} goes on from its newest checkpoint folder to the same model`,
    async () => {
      await using rig = await pythonRig(recipe(['--steps', '1000000000']))
      const cutOff = rig.start(['core', '--json'])
      await until('a checkpoint is there', () => checkpointsOf(rig).length)
      cutOff.child.kill(signal)
      const { exitCode } = await cutOff.ended
      await until('nothing is left of it', () => !survivors(rig).length)
      const newest = Math.max(...checkpointsOf(rig))
      const steps = ['--steps', String(newest + 100)]
      const quotas = JSON.parse(readFileSync(rig.path('quotas.json'), 'utf8'))
      writeFileSync(
        rig.path('quotas.json'),
        JSON.stringify({ jobs: { ...quotas.jobs, core: { ...quotas.jobs.core, ...recipe(steps) } } }),
      )

      const resumed = await rig.run(['core', '--json'])
      const atOnce = spawnSync(python, ['train.py', '--model-dir', 'control', ...steps], { cwd: rig.dir })

      assert.is(exitCode, signal === 'SIGTERM' ? 143 : null)
      assert.equal([resumed.exitCode, atOnce.status], [0, 0])
      assert.match(outputOf(rig), `resumed from checkpoint-${newest}\n`)
      assert.equal(readFileSync(model(rig)), readFileSync(rig.path('control', 'model.pkl')))
    },
  )
}

withNumpyInSweep(
  'a Python training survives a tiny quota: its checkpoint folders go oldest first while it runs',
  async () => {
    const options = ['--features', '65536', '--steps', '100', '--save-steps', '1']
    await using rig = await pythonRig({ ...recipe(options), maxDiskMb: 40 })

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    const during = events.slice(
      events.findIndex(it => it.event === 'train.start'),
      events.findIndex(it => it.event === 'train.exit'),
    )
    const pruned = during.flatMap(it => (it.event === 'storage.prune' ? [basename(it.path)] : []))
    assert.ok(pruned.length >= 10, `${pruned.length} pruned`)
    assert.equal(
      pruned,
      pruned.map((_, index) => `checkpoint-${index + 1}`),
    )
    assert.ok(checkpointsOf(rig).includes(100))
    assert.ok(events.every(it => it.event !== 'storage.usage' || it.usedBytes <= 40 * 2 ** 20))
    assert.ok(existsSync(model(rig)))
  },
)

withNumpyInSweep('day 1 trains a job anew whose pickle is truncated', async () => {
  await using rig = await pythonRig(recipe())
  await rig.run(['core'])
  const trained = readFileSync(model(rig))
  truncateSync(model(rig), statSync(model(rig)).size - 5)

  const unverified = await rig.run(['core'], { script: 'scripts/verify.ts' })
  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(unverified.exitCode, 1)
  assert.match(unverified.stdout + unverified.stderr, 'model.pkl')
  assert.is(exitCode, 0)
  assert.ok(events.some(it => it.event === 'day1.check' && it.missing && it.reason.includes('model.pkl')))
  assert.ok(events.some(it => it.event === 'train.start'))
  assert.equal(readFileSync(model(rig)), trained)
})

skipUnless(
  inSweep,
  existsSync(python),
  'needs Debian python3',
)(
  'a pickle that would act when it is loaded is published, checked and kept from pruning, and never loaded',
  async () => {
    const trainer = `
const bait = "cposix\\nsystem\\n(S'touch " + process.cwd() + "/loaded'\\ntR."
fs.writeFileSync(dir + '/bait.pkl', bait)`
    await using rig = await trainerRig({
      core: { maxDiskMb: 5, models: ['*.pkl'], trainer },
    })
    const bait = rig.path('models', 'core', 'bait.pkl')
    await rig.run(['core'])
    utimesSync(bait, 1, 1)
    writeFileSync(rig.path('models', 'core', 'work', 'old.checkpoint'), Buffer.alloc(6 * 2 ** 20))

    const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])
    const verified = await rig.run(['core'], { script: 'scripts/verify.ts' })

    assert.equal([exitCode, verified.exitCode], [0, 0])
    assert.equal(
      events.flatMap(it => (it.event === 'storage.prune' ? [basename(it.path)] : [])),
      ['old.checkpoint'],
    )
    assert.ok(events.some(it => it.event === 'model.publish' && it.sha256 === sha256Of(readFileSync(bait))))
    assert.not(existsSync(rig.path('loaded')))
    spawnSync(python, ['-c', 'import pickle, sys; pickle.load(open(sys.argv[1], "rb"))', bait])
    assert.ok(existsSync(rig.path('loaded')), 'the bait works')
  },
)

test.run()
