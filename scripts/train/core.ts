/**
 * Seed training of the central engine's model: how likely does ransomware run on a host, judged by one minute of its
 * telemetry? The probability of the class `ransomware` is the risk score. The hosts are simulated.
 *
 *   node --import tsx scripts/train/core.ts --max-disk-mb 3072 --output-dir DIR [--seed N] [--epochs N]
 */
import { isEntry } from '../../lib/settings/script.ts'
import { holdoutFamilies, holdoutWork, trainingFamilies, trainingWork } from './host-activities.ts'
import { hostFeatureNames, hostFeatures } from './host-features.ts'
import { simulateHost, type World } from './host-simulator.ts'
import {
  accuracyOf,
  type Metrics,
  operatingPointsOf,
  percentOf,
  recallOf,
  rocAucOf,
  shareOf,
} from './metrics.ts'
import { Random } from './random.ts'
import type { Dataset, Sample, Scored } from './samples.ts'
import { runSeedTrainer } from './seed-program.ts'
import type { SeedJob } from './seed-training.ts'

const benign = 0
const ransomware = 1
const minutesPerHost = 60
const backups = ['archive_backup', 'mirror_backup', 'incremental_backup']

export const coreJob: SeedJob = {
  name: 'core',
  features: hostFeatureNames,
  classes: ['benign', 'ransomware'],
  sources: 400,
  buildDataset,
  measure,
  summarise: ({ roc_auc, recall, false_positive_rate, false_positive_rate_backup }) =>
    `ROC AUC ${roc_auc!.toFixed(3)}; ${percentOf(recall)} of minutes with unknown ransomware found, ` +
    `${percentOf(false_positive_rate)} false alarms, ${percentOf(false_positive_rate_backup)} during backups`,
}

const trainingWorld: World = {
  work: trainingWork,
  families: trainingFamilies,
  hostSpread: 1.5,
  infected: 0.7,
}
const holdoutWorld: World = { work: holdoutWork, families: holdoutFamilies, hostSpread: 3, infected: 0.5 }

/** Simulate `hosts` to train and a third as many to measure: other hosts, other work, other families of ransomware. */
async function buildDataset(seed: number, hosts: number): Promise<Dataset> {
  const training = samplesOf(trainingWorld, hosts, 'training', seed)
  const holdout = samplesOf(holdoutWorld, Math.ceil(hosts / 3), 'holdout', seed)
  return {
    training,
    holdout,
    description:
      `simulated telemetry, ${minutesPerHost} one-minute windows a host, of office work, builds, backups and the like with ` +
      `and without ransomware: ${training.length} windows of ${hosts} hosts to train, ${holdout.length} of other hosts, ` +
      'with other backups and other families of ransomware, to measure',
  }
}

function samplesOf(world: World, hosts: number, side: string, seed: number): Sample[] {
  return Array.from({ length: hosts }, (_, index) => {
    const source = `${side} host ${index}`
    return simulateHost(world, minutesPerHost, Random.seeded(seed, source)).map(
      ({ window, work, family }) => ({
        features: hostFeatures(window),
        label: family ? ransomware : benign,
        source,
        kind: family ?? work,
      }),
    )
  }).flat()
}

function measure(holdout: Scored[]): Metrics {
  const isAlarm = ({ predicted }: Scored) => predicted === ransomware
  const scoreOf = ({ probabilities }: Scored) => probabilities[ransomware]!
  const isAttack = ({ label }: Scored) => label === ransomware
  const metrics: Metrics = {
    accuracy: accuracyOf(holdout),
    roc_auc: rocAucOf(holdout, scoreOf, isAttack),
    recall: recallOf(holdout, ransomware),
    false_positive_rate: 1 - recallOf(holdout, benign),
    false_positive_rate_backup: shareOf(
      holdout.filter(({ kind }) => backups.includes(kind)),
      isAlarm,
    ),
    ...operatingPointsOf(holdout, scoreOf, isAttack),
  }
  for (const [kind, prefix] of [
    ...Object.keys(holdoutFamilies).map(name => [name, 'recall'] as const),
    ...Object.keys(holdoutWork).map(name => [name, 'false_positive_rate'] as const),
  ]) {
    const windows = holdout.filter(sample => sample.kind === kind)
    if (windows.length) metrics[`${prefix}_${kind}`] = shareOf(windows, isAlarm)
  }
  return metrics
}

if (isEntry(import.meta)) process.exitCode = await runSeedTrainer(coreJob)
