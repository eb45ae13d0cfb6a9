import * as assert from 'uvu/assert'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { sweep } from '../support/kill-sweep.ts'
import { isSweep } from '../support/places.ts'
import { skipUnless } from '../support/skips.ts'
import { sampled } from '../support/test.ts'

/** Kills in each of two sweeps at the same time; in a sample of one, as many as there are kinds of moments. */
const points = isSweep ? 15 : 4
const seeds = isSweep ? [1, 2] : [1]

skipUnless(
  sampled,
  useSandbox('core', 'auto'),
  'needs bubblewrap',
)(
  'kills at any moment of a run: no double training, no survivor after a second, no torn model, next start works',
  async () => {
    const results = await Promise.all(seeds.map(seed => sweep(points, seed)))

    assert.equal(
      results.flatMap(({ faults }) => faults),
      [],
    )
    const kills = results.flatMap(result => Object.values(result.kills))
    assert.is(kills.length, 4 * seeds.length, 'every sweep hits every kind of moment')
    assert.is(
      kills.reduce((sum, count) => sum + count),
      seeds.length * points,
    )
  },
)

sampled.run()
