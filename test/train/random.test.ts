import * as assert from 'uvu/assert'
import { Random } from '../../scripts/train/random.ts'
import { test } from '../support/test.ts'

test('Random gives the numbers of xoshiro128**', () => {
  const random = new Random(Uint32Array.of(1, 2, 3, 4))

  const numbers = Array.from({ length: 3 }, () => random.next() * 2 ** 32)

  // Worked out by hand from the definition of the generator.
  assert.equal(numbers, [11520, 0, 5927040])
})

test('Random draws counts, normal and exponential numbers with the mean they are asked for', () => {
  const random = Random.seeded(1, 'means')
  const mean = (draw: () => number) => {
    let sum = 0
    for (let times = 0; times < 20_000; times++) sum += draw()
    return sum / 20_000
  }

  const means = [
    mean(() => random.poisson(2)),
    mean(() => random.poisson(80)) / 40,
    mean(() => random.normal(2, 1)),
    mean(() => random.exponential(2)),
    mean(() => random.uniform(1, 3)),
  ]

  for (const value of means) assert.ok(Math.abs(value - 2) < 0.06, `${value} is not near 2`)
})

test.run()
