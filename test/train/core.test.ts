import * as assert from 'uvu/assert'
import { holdoutFamilies, trainingFamilies } from '../../scripts/train/host-activities.ts'
import { hostFeatureNames, hostFeatures } from '../../scripts/train/host-features.ts'
import { rocAucOf } from '../../scripts/train/metrics.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'
import { smallCore, trainSmall } from '../support/train-fixture.ts'

test('the core model ranks unseen families of ransomware better than any one measurement does', async () => {
  await using box = await sandbox()

  const { holdout, metrics } = await trainSmall({ ...smallCore, sources: 120 }, box.dir, { epochs: 10 })

  const alone = hostFeatureNames.map((_, column) =>
    rocAucOf(
      holdout,
      ({ features }) => features[column]!,
      ({ label }) => label === 1,
    ),
  )
  assert.ok(metrics.roc_auc! > Math.max(...alone) + 0.02, `${metrics.roc_auc} against ${Math.max(...alone)}`)
  assert.ok(metrics.recall! > 0.4)
  assert.ok(metrics.false_positive_rate! < 0.1)
  assert.ok(metrics.false_positive_rate_backup! < 0.25)
})

test('hosts and families of ransomware stand on one side of the split only', async () => {
  const { training, holdout } = await smallCore.buildDataset(7, 60)

  const hosts = new Set(training.map(({ source }) => source))
  const families = new Set(training.filter(({ label }) => label === 1).map(({ kind }) => kind))
  assert.not(holdout.some(({ source }) => hosts.has(source)))
  assert.not(holdout.some(({ label, kind }) => label === 1 && families.has(kind)))
  assert.equal([...families].sort(), Object.keys(trainingFamilies).sort())
  assert.ok(holdout.some(({ kind }) => kind in holdoutFamilies))
  assert.ok(holdout.some(({ kind }) => kind === 'incremental_backup'))
})

test('hostFeatures() tells overwriting from creating, and never divides by nothing', () => {
  const nothing = {
    connections: 0,
    sentBytes: 0,
    receivedBytes: 0,
    processes: 0,
    filesRead: 0,
    filesOverwritten: 0,
    filesCreated: 0,
    filesRenamed: 0,
    filesDeleted: 0,
    foldersTouched: 0,
    readBytes: 0,
    writtenBytes: 0,
    writtenEntropyBits: 0,
    cpuPercent: 0,
    memoryPercent: 0,
  }
  const overwritten = hostFeatureNames.indexOf('overwritten_share_of_written')

  const idle = hostFeatures(nothing)
  const busy = hostFeatures({ ...nothing, filesRead: 4, filesOverwritten: 3, filesCreated: 1 })

  assert.ok(idle.every(value => value === 0))
  assert.is(busy[overwritten], 0.75)
  assert.is(busy.length, hostFeatureNames.length)
})

test.run()
