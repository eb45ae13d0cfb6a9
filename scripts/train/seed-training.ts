import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../lib/errors.ts'
import type { JobName } from '../../lib/quotas.ts'
import { packageVersion } from '../../lib/settings/options.ts'
import { replaceFile, storageError } from '../../lib/system/durable.ts'
import { removeCheckpoints, resume, saveCheckpoint, type TrainingState } from './checkpoint.ts'
import { Classifier } from './classifier.ts'
import { checkpointsToKeep } from './disk-budget.ts'
import { accuracyOf, type Metrics } from './metrics.ts'
import { encodeOnnx } from './onnx.ts'
import { Random } from './random.ts'
import type { Dataset, Scored } from './samples.ts'

/** The particulars of one of the three seed trainings. */
export type SeedJob = {
  name: JobName
  features: readonly string[]
  classes: readonly string[]
  /** Number of things (files, flows, hosts) that the data is made of. */
  sources: number
  /** Build the data. The same seed and count give the same data, on the same machine where it is made of its files. */
  buildDataset(seed: number, sources: number): Promise<Dataset>
  /** Measure the finished model on the holdout. Anything chosen by data is chosen on `training`. */
  measure(holdout: Scored[], training: Scored[]): Metrics
  /** Say in one line how good the model is. */
  summarise(metrics: Metrics): string
}

/** The request to a seed trainer. */
export type SeedRequest = { outputDir: string; maxDiskMb: number; seed: number; epochs: number }

/** A finished training. */
export type SeedModel = { classifier: Classifier; holdout: Scored[]; metrics: Metrics; onnx: Uint8Array }

/** Width of the one hidden layer. */
const hiddenWidth = 32
const firstRate = 0.002

/**
 * Train a seed model and write `<job>.onnx` and `metadata.json` into the output folder. Interrupted at any moment and
 * started again, it goes on from the newest good checkpoint and ends in the same bytes. A finished training leaves no
 * checkpoints: the next start is a new training. The holdout is measured after every epoch only to be shown: nothing is
 * chosen by it.
 *
 * @param tell gets the share of the training that is done
 * @throws {TrainerError} `training-failed` if the quota has no room for the output, or there is too little data
 */
export async function trainSeedModel(
  job: SeedJob,
  { outputDir, maxDiskMb, seed, epochs }: SeedRequest,
  print: (line: string) => void,
  tell: (share: number) => void = () => {},
): Promise<SeedModel> {
  makeFolder(outputDir)
  const { training, holdout, description } = await job.buildDataset(seed, job.sources)
  print(`${job.name}: ${description}`)

  const random = Random.seeded(seed, `${job.name} training`)
  const classifier = new Classifier(training, hiddenWidth, job.classes.length, random)
  const { network } = classifier
  const version = packageVersion()
  const matrix = classifier.matrixOf(training)
  const data = createHash('sha256').update(matrix.rows).update(matrix.labels).digest('hex')
  const identity = JSON.stringify({ job: job.name, version, seed, epochs, hiddenWidth, data })
  const state: TrainingState = { identity, epoch: 0, network, random }

  const keep = await checkpointsToKeep(outputDir, maxDiskMb, state)
  resume(outputDir, state, (name, reason) => print(`passing over ${name}: ${reason}`))
  if (state.epoch > 0) print(`going on after epoch ${state.epoch}`)
  while (state.epoch < epochs) {
    const loss = network.trainEpoch(matrix, random, firstRate * (1 - state.epoch / epochs))
    state.epoch++
    await saveCheckpoint(outputDir, state, keep)
    tell(state.epoch / epochs)
    const share = accuracyOf(classifier.score(holdout))
    print(`epoch ${state.epoch}/${epochs}  loss ${loss.toFixed(4)}  holdout ${share.toFixed(3)}`)
  }

  const scored = classifier.score(holdout)
  const metrics = job.measure(scored, classifier.score(training))
  const metadata = {
    version,
    features: job.features,
    classes: job.classes,
    trained_on: description,
    seed,
    performance_metrics: metrics,
  }
  const onnx = encodeOnnx(job.name, classifier, metadata)
  await replaceFile(join(outputDir, 'metadata.json'), `${JSON.stringify(metadata, null, 2)}\n`)
  await replaceFile(join(outputDir, `${job.name}.onnx`), onnx)
  removeCheckpoints(outputDir)

  for (const [name, figure] of Object.entries(metrics))
    print(`  ${name.padEnd(48)}${figure.toFixed(4).padStart(9)}`)
  print(`${job.name}: ${job.summarise(metrics)}`)
  return { classifier, holdout: scored, metrics, onnx }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path) // with `recursive`, Node would try for ever below /proc
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw storageError(`Cannot make ${path}`, error)
  }
}
