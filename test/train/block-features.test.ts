import * as assert from 'uvu/assert'
import { blockFeatureNames, blockFeatures } from '../../scripts/train/block-features.ts'
import { Random } from '../../scripts/train/random.ts'
import { test } from '../support/test.ts'

test('blockFeatures() of all bytes in turn: full entropy, nothing random about it', () => {
  const features = named(blockFeatures(Uint8Array.from({ length: 4096 }, (_, at) => at % 256)))

  assert.is(features.entropy_bits, 8)
  assert.is(features.mean_byte, 127.5)
  assert.is(features.high_byte_share, 0.5)
  assert.is(features.longest_run_log2, 0)
  assert.ok(features.serial_correlation! > 0.9)
  assert.ok(features.bit_windows_12_log2! > 2)
  assert.ok(features.bit_correlation_near_log2! > 3)
})

test('blockFeatures() of zeros and of text', () => {
  const zeros = named(blockFeatures(new Uint8Array(4096)))
  const text = named(blockFeatures(Buffer.from('The quick brown fox. '.repeat(200)).subarray(0, 4096)))

  assert.is(zeros.entropy_bits, 0)
  assert.is(zeros.zero_share, 1)
  assert.is(zeros.longest_run_log2, 12)
  assert.is(text.printable_share, 1)
  assert.is(text.high_byte_share, 0)
})

test('blockFeatures() of random bytes is what chance gives', () => {
  const random = Random.seeded(3, 'bytes')

  const blocks = Array.from({ length: 50 }, () => named(blockFeatures(random.bytes(4096))))

  const mean = (name: string) => blocks.reduce((sum, features) => sum + features[name]!, 0) / blocks.length
  assert.ok(Math.abs(mean('chi_square_log2')) < 0.1)
  for (const width of [8, 10, 12]) assert.ok(Math.abs(mean(`bit_windows_${width}_log2`)) < 0.1)
  assert.ok(Math.abs(mean('one_bits_deviation')) < 0.5)
  assert.ok(Math.abs(mean('monte_carlo_pi_error')) < 0.05)
})

function named(features: Float32Array): Record<string, number> {
  return Object.fromEntries(blockFeatureNames.map((name, index) => [name, features[index]!]))
}

test.run()
