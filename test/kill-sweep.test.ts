import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { useSandbox } from '../lib/containment.ts'
import { sweep } from './kill-sweep.ts'
import { skipUnless } from './skips.ts'

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
    assert.is(
      results.reduce((sum, { points }) => sum + points, 0),
      100,
    )
  },
)

test.run()
