import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { sweep } from '../support/kill-sweep.ts'
import { skipUnless } from '../support/skips.ts'

skipUnless(
  test,
  useSandbox('core', 'auto'),
  'needs bubblewrap',
)(
  'a hundred kills of a whole run: no double training, no survivor after a second, no torn model, next start works',
  async () => {
    const results = await Promise.all([1, 2].map(seed => sweep(50, seed)))

    assert.equal(
      results.flatMap(({ faults }) => faults),
      [],
    )
    const kills = results.flatMap(result => Object.values(result.kills))
    assert.is(kills.length, 8, 'both sweeps hit every kind of moment')
    assert.is(
      kills.reduce((sum, count) => sum + count),
      100,
    )
  },
)

test.run()
