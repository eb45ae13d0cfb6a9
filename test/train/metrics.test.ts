import * as assert from 'uvu/assert'
import { macroF1Of, operatingPointsOf, rocAucOf } from '../../scripts/train/metrics.ts'
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

test('operatingPointsOf() gives the thresholds above which so few negatives lie, and what is found there', () => {
  const negatives = Array.from({ length: 1000 }, (_, index) => ({ score: index / 1000, positive: false }))
  const positives = [0.5, 0.985, 0.995, 0.9985, 1].map(score => ({ score, positive: true }))

  const points = operatingPointsOf(
    [...positives, ...negatives],
    it => it.score,
    it => it.positive,
  )

  assert.equal(points, {
    'threshold_at_0.1_percent_fpr': 0.998,
    'recall_at_0.1_percent_fpr': 2 / 5,
    threshold_at_1_percent_fpr: 0.989,
    recall_at_1_percent_fpr: 3 / 5,
  })
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
