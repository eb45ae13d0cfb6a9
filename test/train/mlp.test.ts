import * as assert from 'uvu/assert'
import { Mlp } from '../../scripts/train/mlp.ts'
import { Random } from '../../scripts/train/random.ts'
import { test } from '../support/test.ts'

test('Mlp learns exclusive or, which no straight line separates', () => {
  const random = Random.seeded(2, 'xor')
  const rows = Float32Array.from([-1, -1, -1, 1, 1, -1, 1, 1])
  const labels = Uint8Array.of(0, 1, 1, 0)
  const network = new Mlp([2, 8, 2], random)

  const losses = Array.from({ length: 400 }, () =>
    network.trainEpoch({ rows, labels, width: 2 }, random, 0.02, 4),
  )

  const likeliest = [0, 1, 2, 3].map(row => (network.predict(rows, row * 2)[1]! > 0.5 ? 1 : 0))
  assert.equal(likeliest, [0, 1, 1, 0])
  assert.ok(losses.at(-1)! < losses[0]! / 5)
})

test('the gradient that Mlp follows is the slope of its loss', () => {
  const random = Random.seeded(6, 'gradient')
  const network = new Mlp([3, 6, 4, 2], random)
  const rows = Float32Array.of(0.7, -1.2, 0.4)
  const loss = () => -Math.log(network.predict(rows)[1]!)
  const slopes = Array.from(network.weights, (weight, at) => {
    const [above, below] = [0.001, -0.001].map(step => {
      network.weights[at] = weight + step
      return loss()
    })
    network.weights[at] = weight
    return (above! - below!) / 0.002
  })

  network.trainEpoch({ rows, labels: Uint8Array.of(1), width: 3 }, random, 0)

  // After one step the first moment is a tenth of the gradient.
  const followed = Array.from(network.moment1, moment => moment * 10)
  assert.ok(slopes.filter(slope => Math.abs(slope) > 0.01).length > 10)
  for (const [at, slope] of slopes.entries())
    assert.ok(Math.abs(slope - followed[at]!) < 2e-3, `weight ${at}`)
})

test.run()
