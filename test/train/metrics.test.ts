import * as assert from 'uvu/assert'
import { macroF1Of, rocAucOf } from '../../scripts/train/metrics.ts'
import { test } from '../support/test.ts'

test('rocAucOf() counts pairs in order, ties as half', () => {
  const items = [
    { score: 0.1, positive: false },
    { score: 0.4, positive: false },
    { score: 0.4, positive: true },
    { score: 0.8, positive: true },
  ]
  const auc = (score: (item: (typeof items)[number]) => number) =>
    rocAucOf(items, score, ({ positive }) => positive)

  assert.is(
    auc(({ score }) => score),
    3.5 / 4,
  )
  assert.is(
    auc(({ score }) => -score),
    0.5 / 4,
  )
  assert.is(
    auc(() => 1),
    0.5,
  )
})

test('macroF1Of() weighs a rare class as much as a common one', () => {
  const scored = [0, 0, 0, 1].map((label, index) => ({
    label,
    predicted: index === 2 ? 1 : label,
    features: new Float32Array(),
    probabilities: new Float32Array(),
    source: '',
    kind: '',
  }))

  const f1 = macroF1Of(scored, 2)

  assert.ok(Math.abs(f1 - (4 / 5 + 2 / 3) / 2) < 1e-12)
})

test.run()
