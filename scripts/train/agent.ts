/**
 * Seed training of the agent's model: is this 4 KiB block encrypted? The data is real, made of the files of the
 * machine that the training runs on. Known limit: these features cannot tell streams of LZMA (xz, 7z), and about half
 * of brotli's at its best level, from encryption, and the model calls them encrypted.
 *
 * node --import tsx scripts/train/agent.ts --max-disk-mb 200 --output-dir DIR [--seed N] [--epochs N]
 */
import { createHash } from 'node:crypto'
import { TrainerError } from '../../lib/errors.ts'
import { isEntry } from '../../lib/settings/script.ts'
import { blockFeatureNames, blockFeatures } from './block-features.ts'
import { type BlockKind, blocksOf } from './file-blocks.ts'
import { type FileSection, readFileSections, systemRoots } from './file-sections.ts'
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

const ordinary = 0
const encrypted = 1
const encryptedKinds: readonly string[] = ['aes-ctr', 'chacha20'] satisfies BlockKind[]
const compressedKinds: readonly string[] = ['packed', 'gzip', 'brotli'] satisfies BlockKind[]
const entropyColumn = blockFeatureNames.indexOf('entropy_bits')
const fewestTrainingFiles = 24
const fewestHoldoutFiles = 8
/** The fewest blocks to compute a rate of: a rate over fewer says nothing. */
const fewestBlocksToRate = 20

export const agentJob: SeedJob = {
  name: 'agent',
  features: blockFeatureNames,
  classes: ['ordinary', 'encrypted'],
  sources: 800,
  buildDataset: (seed, files) => buildDataset(seed, files, systemRoots),
  measure,
  summarise: metrics =>
    `${percentOf(metrics.recall)} of encrypted blocks found, ${percentOf(metrics.false_positive_rate)} false alarms; ` +
    `compressed against encrypted ${percentOf(metrics.compressed_vs_encrypted_accuracy)} right, ` +
    `by entropy alone ${percentOf(metrics.entropy_compressed_vs_encrypted_accuracy)}`,
}

/**
 * Build a dataset of blocks of up to `files` files below `roots`. A package or folder goes whole to one side of the
 * split.
 *
 * @throws {TrainerError} `training-failed` if there are too few files to learn from
 */
export async function buildDataset(seed: number, files: number, roots: readonly string[]): Promise<Dataset> {
  const sections = readFileSections(roots, files, Random.seeded(seed, 'files'))
  const training = sections.filter(section => !isHeldOut(section, seed))
  const holdout = sections.filter(section => isHeldOut(section, seed))
  if (training.length < fewestTrainingFiles || holdout.length < fewestHoldoutFiles) {
    throw new TrainerError(
      'training-failed',
      `Cannot train agent: ${training.length} files to train and ${holdout.length} to measure are readable below ` +
        `${roots.join(', ')}, at least ${fewestTrainingFiles} and ${fewestHoldoutFiles} of 8 KiB or more are needed`,
    )
  }
  const trainingSamples = await samplesOf(training, seed)
  const holdoutSamples = await samplesOf(holdout, seed)
  return {
    training: trainingSamples,
    holdout: holdoutSamples,
    description:
      `4 KiB blocks of ${sections.length} files of this machine, as they are, compressed (gzip 1, 6, 9; ` +
      `brotli 4, 5) and encrypted (AES-256-CTR, ChaCha20): ${trainingSamples.length} blocks of ${training.length} ` +
      `files to train, ${holdoutSamples.length} of ${holdout.length} files of other packages and folders to ` +
      'measure; LZMA (xz, 7z) is not in it and looks encrypted to the model',
  }
}

function isHeldOut({ group }: FileSection, seed: number): boolean {
  return createHash('sha256').update(`${seed} ${group}`).digest()[0]! < 64
}

/** Make samples of a few sections at a time: a compressor at work takes megabytes. */
async function samplesOf(sections: readonly FileSection[], seed: number): Promise<Sample[]> {
  const samples: Sample[][] = []
  const queue = sections.entries()
  const lanes = Array.from({ length: 3 }, async () => {
    for (const [index, section] of queue) samples[index] = await samplesOfOne(section, seed)
  })
  await Promise.all(lanes)
  return samples.flat()
}

async function samplesOfOne(section: FileSection, seed: number): Promise<Sample[]> {
  const blocks = await blocksOf(section, Random.seeded(seed, section.path))
  return blocks.map(({ kind, bytes }) => ({
    features: blockFeatures(bytes),
    label: encryptedKinds.includes(kind) ? encrypted : ordinary,
    source: section.group,
    kind,
  }))
}

function measure(holdout: Scored[], training: Scored[]): Metrics {
  const threshold = bestEntropyThreshold(training)
  const byEntropy = holdout.map(sample => ({
    ...sample,
    predicted: sample.features[entropyColumn]! >= threshold ? encrypted : ordinary,
  }))
  const model = measureDecisions(holdout, ({ probabilities }) => probabilities[encrypted]!)
  const entropy = measureDecisions(byEntropy, ({ features }) => features[entropyColumn]!)
  return {
    ...model,
    ...operatingPointsOf(
      holdout,
      ({ probabilities }) => probabilities[encrypted]!,
      ({ label }) => label === encrypted,
    ),
    ...Object.fromEntries(Object.entries(entropy).map(([name, figure]) => [`entropy_${name}`, figure])),
    entropy_threshold_bits: threshold,
    accuracy_gain: model.accuracy! - entropy.accuracy!,
    compressed_vs_encrypted_accuracy_gain:
      model.compressed_vs_encrypted_accuracy! - entropy.compressed_vs_encrypted_accuracy!,
  }
}

function measureDecisions(scored: Scored[], score: (sample: Scored) => number): Metrics {
  const isEncrypted = ({ label }: Scored) => label === encrypted
  const hard = scored.filter(sample => isEncrypted(sample) || compressedKinds.includes(sample.kind))
  const metrics: Metrics = {
    accuracy: accuracyOf(scored),
    recall: recallOf(scored, encrypted),
    false_positive_rate: 1 - recallOf(scored, ordinary),
    roc_auc: rocAucOf(scored, score, isEncrypted),
    compressed_vs_encrypted_accuracy: accuracyOf(hard),
    compressed_vs_encrypted_roc_auc: rocAucOf(hard, score, isEncrypted),
  }
  for (const kind of ['plain', ...compressedKinds]) {
    const blocks = scored.filter(sample => sample.kind === kind)
    if (blocks.length >= fewestBlocksToRate) {
      metrics[`false_positive_rate_${kind}`] = shareOf(blocks, ({ predicted }) => predicted === encrypted)
    }
  }
  return metrics
}

/** Find the threshold that is right most often on the training data. */
function bestEntropyThreshold(training: readonly Scored[]): number {
  const sorted = training
    .map(({ features, label }) => ({ entropy: features[entropyColumn]!, label }))
    .sort((a, b) => a.entropy - b.entropy)
  let right = sorted.filter(({ label }) => label === encrypted).length
  let best = { right, threshold: sorted[0]!.entropy }
  sorted.forEach(({ entropy, label }, index) => {
    right += label === encrypted ? -1 : 1
    const next = sorted[index + 1]?.entropy ?? entropy
    if (right > best.right && next > entropy) best = { right, threshold: next }
  })
  return best.threshold
}

if (isEntry(import.meta)) process.exitCode = await runSeedTrainer(agentJob)
