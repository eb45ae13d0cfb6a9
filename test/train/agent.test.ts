import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { buildDataset } from '../../scripts/train/agent.ts'
import { sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'
import { smallAgent, trainSmall } from '../support/train-fixture.ts'

const dataset = smallAgent.buildDataset(7, smallAgent.sources)

inSweep('the agent model beats the best entropy threshold on files of packages it has not seen', async () => {
  await using box = await sandbox()

  const { metrics } = await trainSmall({ ...smallAgent, buildDataset: () => dataset }, box.dir, {
    epochs: 12,
  })

  assert.ok(metrics.accuracy! > metrics.entropy_accuracy! + 0.02, JSON.stringify(metrics))
  assert.ok(metrics.compressed_vs_encrypted_roc_auc! > metrics.entropy_compressed_vs_encrypted_roc_auc!)
  assert.ok(metrics.recall! > 0.8)
  assert.ok(metrics.false_positive_rate_plain! < 0.05)
})

test('blocks of a package stand on one side of the split only, and no block on both', async () => {
  const { training, holdout } = await dataset

  const groups = new Set(training.map(({ source }) => source))
  const blocks = new Set(training.map(({ features }) => features.join()))
  assert.ok(groups.size > 20)
  assert.not(holdout.some(({ source }) => groups.has(source)))
  assert.not(holdout.some(({ features }) => blocks.has(features.join())))
})

test('the agent learns from every kind of block, and what is encrypted is labelled so', async () => {
  const { training } = await dataset

  const labels = new Map(training.map(({ kind, label }) => [kind, label]))
  labels.delete('packed') // a machine need not have such files

  assert.equal(Object.fromEntries(labels), { plain: 0, gzip: 0, brotli: 0, 'aes-ctr': 1, chacha20: 1 })
})

test('too few files to learn from are refused with exit 1 and the figures', async () => {
  await using box = await sandbox({ 'one/file': 20_000, 'two/file': 30_000 })

  const failure = await buildDataset(1, 100, [box.dir, box.path('missing')]).catch(error => error)

  assert.instance(failure, TrainerError)
  assert.is(failure.exitCode, 1)
  assert.match(
    failure.message,
    /^Cannot train agent: \d files to train and \d to measure are readable below /,
  )
})

test.run()
