/**
 * Seed training of the network probe's model: what kind of flow is this? The flows are simulated, packet by packet.
 *
 *   node --import tsx scripts/train/dpi.ts --max-disk-mb 3072 --output-dir DIR [--seed N] [--epochs N]
 */
import { isEntry } from '../../lib/settings/script.ts'
import { flowFeatureNames, flowFeatures } from './flow-features.ts'
import { simulateFlow } from './flow-simulator.ts'
import { type FlowStyles, flowClasses, holdoutStyles, trainingStyles } from './flow-styles.ts'
import { accuracyOf, type Metrics, macroF1Of, operatingPointsOf, percentOf, recallOf } from './metrics.ts'
import { Random } from './random.ts'
import type { Dataset, Sample, Scored } from './samples.ts'
import { runSeedTrainer } from './seed-program.ts'
import type { SeedJob } from './seed-training.ts'

export const dpiJob: SeedJob = {
  name: 'dpi',
  features: flowFeatureNames,
  classes: flowClasses,
  sources: 6000,
  buildDataset,
  measure,
  summarise: ({ accuracy, macro_f1, false_positive_rate }) =>
    `${percentOf(accuracy)} of flows of unknown programs and attackers right, macro F1 ${macro_f1!.toFixed(3)}, ` +
    `${percentOf(false_positive_rate)} of normal flows called an attack`,
}

/** Simulate `flows` to train and a third as many to measure. No style of flow stands on both sides. */
async function buildDataset(seed: number, flows: number): Promise<Dataset> {
  const training = samplesOf(trainingStyles, flows, Random.seeded(seed, 'training flows'))
  const holdout = samplesOf(holdoutStyles, Math.ceil(flows / 3), Random.seeded(seed, 'holdout flows'))
  return {
    training,
    holdout,
    description:
      `simulated flows between two hosts, the first 200 packets of up to an hour: ${training.length} flows of ` +
      `${stylesOf(trainingStyles).length} styles to train, ${holdout.length} of ${stylesOf(holdoutStyles).length} other ` +
      'styles to measure',
  }
}

function samplesOf(styles: FlowStyles, flows: number, random: Random): Sample[] {
  const all = stylesOf(styles)
  return Array.from({ length: flows }, (_, index) => {
    const { name, label, style } = all[index % all.length]!
    return { features: flowFeatures(simulateFlow(style, random)), label, source: name, kind: name }
  })
}

function stylesOf(styles: FlowStyles) {
  return flowClasses.flatMap((flowClass, label) =>
    Object.entries(styles[flowClass]).map(([name, style]) => ({ name, label, style })),
  )
}

function measure(holdout: Scored[]): Metrics {
  const metrics: Metrics = {
    accuracy: accuracyOf(holdout),
    macro_f1: macroF1Of(holdout, flowClasses.length),
    false_positive_rate: 1 - recallOf(holdout, 0),
    ...operatingPointsOf(
      holdout,
      ({ probabilities }) => 1 - probabilities[0]!,
      ({ label }) => label > 0,
    ),
  }
  flowClasses.forEach((name, label) => {
    if (label > 0) metrics[`recall_${name}`] = recallOf(holdout, label)
  })
  for (const { name } of stylesOf(holdoutStyles)) {
    metrics[`accuracy_${name}`] = accuracyOf(holdout.filter(({ kind }) => kind === name))
  }
  return metrics
}

if (isEntry(import.meta)) process.exitCode = await runSeedTrainer(dpiJob)
