import * as assert from 'uvu/assert'
import { flowFeatureNames, flowFeatures } from '../../scripts/train/flow-features.ts'
import { type Packet, simulateFlow } from '../../scripts/train/flow-simulator.ts'
import { flowClasses, trainingStyles } from '../../scripts/train/flow-styles.ts'
import { Random } from '../../scripts/train/random.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'
import { smallDpi, trainSmall } from '../support/train-fixture.ts'

test('the dpi model recognises every class in styles of flows it has not seen, far better than by guessing', async () => {
  await using box = await sandbox()

  const { holdout, metrics } = await trainSmall(smallDpi, box.dir, { epochs: 15 })

  const commonest = holdout.filter(({ label }) => label === 0).length / holdout.length
  assert.ok(metrics.accuracy! > commonest + 0.2, JSON.stringify(metrics))
  assert.ok(metrics.macro_f1! > 0.6)
  for (const name of flowClasses.slice(1)) assert.ok(metrics[`recall_${name}`]! > 0.4, name)
  assert.ok(metrics.false_positive_rate! < 0.3)
})

test('no style of flow stands on both sides of the split, and every class on each', async () => {
  const { training, holdout } = await smallDpi.buildDataset(7, 300)

  const styles = new Set(training.map(({ source }) => source))
  assert.not(holdout.some(({ source }) => styles.has(source)))
  for (const side of [training, holdout]) {
    assert.equal([...new Set(side.map(({ label }) => label))].sort(), [0, 1, 2, 3])
  }
})

test('flowFeatures() describes a beacon by its regular bursts', () => {
  const flow = [0, 60, 120, 180].flatMap(startS => [
    packet(startS, true, 0, 'syn'),
    packet(startS + 0.1, false, 0, 'syn'),
    packet(startS + 0.2, true, 100),
    packet(startS + 0.3, false, 50),
  ])

  const features = named(flowFeatures(flow))

  near(features.bursts_log, Math.log1p(4))
  near(features.burst_interval_s_log, Math.log1p(60))
  near(features.burst_interval_variation, 0)
  near(features.burst_up_bytes_log, Math.log1p(100))
  near(features.up_byte_share, 100 / 150)
  near(features.connections_log, Math.log1p(4))
  near(features.unanswered_share, 0)
  near(features.empty_packet_share, 0.5)
})

test('flowFeatures() describes a scan by its ports and its unanswered connections', () => {
  const flow = [1, 2, 3, 4].flatMap(port => [
    packet(port / 100, true, 0, 'syn', port),
    ...(port === 1 ? [packet(port / 100 + 0.001, false, 0, 'rst', port)] : []),
  ])

  const features = named(flowFeatures(flow))

  near(features.ports_log, Math.log1p(4))
  near(features.unanswered_share, 1)
  near(features.reset_packet_share, 1 / 5)
  near(features.up_bytes_log, 0)
  near(features.bursts_log, Math.log1p(1))
})

test('simulateFlow() keeps the order of time and the limits of the probe', () => {
  const random = Random.seeded(1, 'flows')
  for (const style of flowClasses.flatMap(name => Object.values(trainingStyles[name]))) {
    const flow = simulateFlow(style, random)

    assert.ok(flow.length > 0 && flow.length < 210)
    flow.forEach(({ timeS, payloadBytes, entropyBits }, index) => {
      assert.ok(index === 0 || timeS >= flow[index - 1]!.timeS)
      assert.ok(payloadBytes >= 0 && payloadBytes <= 1448)
      assert.ok(entropyBits >= 0 && entropyBits <= Math.max(0, Math.log2(payloadBytes)))
    })
  }
})

function packet(
  timeS: number,
  up: boolean,
  payloadBytes: number,
  flag: Packet['flag'] = 'none',
  port = 443,
): Packet {
  return { timeS, up, port, payloadBytes, flag, entropyBits: 0 }
}

function named(features: Float32Array) {
  return Object.fromEntries(flowFeatureNames.map((name, index) => [name, features[index]!]))
}

function near(actual: number | undefined, expected: number): void {
  assert.ok(Math.abs(actual! - expected) < 1e-5, `${actual} is not ${expected}`)
}

test.run()
