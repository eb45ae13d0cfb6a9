import type { Scored } from './samples.ts'

/** Figures by flat name, as in the model's metadata. */
export type Metrics = Record<string, number>

/** Return the share of `items` for which `holds` is true; NaN without items. */
export function shareOf<T>(items: readonly T[], holds: (item: T) => boolean): number {
  return items.filter(holds).length / items.length
}

export function accuracyOf(scored: readonly Scored[]): number {
  return shareOf(scored, ({ predicted, label }) => predicted === label)
}

/** Return the share of the samples of class `label` that are recognised as such. */
export function recallOf(scored: readonly Scored[], label: number): number {
  return shareOf(
    scored.filter(sample => sample.label === label),
    ({ predicted }) => predicted === label,
  )
}

/** Return the mean over the classes of the harmonic mean of precision and recall. */
export function macroF1Of(scored: readonly Scored[], classCount: number): number {
  const scores = Array.from({ length: classCount }, (_, label) => {
    const hits = scored.filter(sample => sample.label === label && sample.predicted === label).length
    const claims = scored.filter(sample => sample.predicted === label).length
    const members = scored.filter(sample => sample.label === label).length
    return (2 * hits) / (claims + members)
  })
  return scores.reduce((sum, score) => sum + score, 0) / classCount
}

/**
 * Return the area under the ROC curve: the probability that a random positive item scores above a random negative one.
 * Ties count half.
 */
export function rocAucOf<T>(
  items: readonly T[],
  score: (item: T) => number,
  positive: (item: T) => boolean,
): number {
  const ranked = items
    .map(item => ({ value: score(item), positive: positive(item) }))
    .sort((a, b) => a.value - b.value)
  const positives = ranked.filter(item => item.positive).length
  let rankSum = 0
  for (let start = 0, end = 0; start < ranked.length; start = end) {
    while (end < ranked.length && ranked[end]!.value === ranked[start]!.value) end++
    const meanRank = (start + end + 1) / 2
    rankSum += meanRank * ranked.slice(start, end).filter(item => item.positive).length
  }
  return (rankSum - (positives * (positives + 1)) / 2) / (positives * (ranked.length - positives))
}

/** The false alarms that a detection engineer lets a model make: one in a thousand negatives, and one in a hundred. */
const falseAlarmShares = { '0.1_percent': 0.001, '1_percent': 0.01 }

/**
 * Return the points at which a detector is run: for 0.1 % and 1 % of false positives the threshold, above which a score is
 * an alarm, and the share of positives that are found there.
 */
export function operatingPointsOf<T>(
  items: readonly T[],
  score: (item: T) => number,
  positive: (item: T) => boolean,
): Metrics {
  const negatives = items
    .filter(item => !positive(item))
    .map(score)
    .sort((a, b) => b - a)
  const positives = items.filter(positive)
  return Object.fromEntries(
    Object.entries(falseAlarmShares).flatMap(([name, share]) => {
      const threshold = negatives[Math.floor(share * negatives.length)] ?? 0
      const recall = shareOf(positives, item => score(item) > threshold)
      return [
        [`threshold_at_${name}_fpr`, threshold],
        [`recall_at_${name}_fpr`, recall],
      ]
    }),
  )
}

/** Format a share as a percentage. */
export function percentOf(share = Number.NaN): string {
  return `${(100 * share).toFixed(1)} %`
}
