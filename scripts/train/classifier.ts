import { Mlp } from './mlp.ts'
import type { Random } from './random.ts'
import type { Sample, Scored } from './samples.ts'

/** The bound of standardised values: cut there, one absurd measurement cannot decide alone. */
export const clipAt = 8

/** A network and the standardisation in front of it, both learnt from training data and both exported. */
export class Classifier {
  readonly network: Mlp
  readonly mean: Float32Array
  /** One over the standard deviation; 0 for a feature that never varied. */
  readonly scale: Float32Array

  constructor(training: readonly Sample[], hiddenWidth: number, classCount: number, random: Random) {
    const width = training[0]!.features.length
    const columns = Array.from({ length: width }, (_, column) => momentsOf(training, column))
    this.mean = Float32Array.from(columns, ({ mean }) => mean)
    this.scale = Float32Array.from(columns, ({ deviation }) => (deviation > 1e-9 ? 1 / deviation : 0))
    this.network = new Mlp([width, hiddenWidth, classCount], random)
  }

  /** Standardise features in float32, operation by operation as the exported graph does. */
  standardise(features: Float32Array): Float32Array {
    return features.map((value, column) => {
      const scaled = Math.fround(value - this.mean[column]!) * this.scale[column]!
      return Math.max(-clipAt, Math.min(clipAt, scaled))
    })
  }

  /** Put the standardised samples into one matrix to train on. */
  matrixOf(samples: readonly Sample[]) {
    const width = this.mean.length
    const rows = new Float32Array(samples.length * width)
    for (const [index, { features }] of samples.entries()) rows.set(this.standardise(features), index * width)
    return { rows, labels: Uint8Array.from(samples, ({ label }) => label), width }
  }

  /** Predict each sample. The first of equally probable classes wins, as in the graph. */
  score(samples: readonly Sample[]): Scored[] {
    return samples.map(sample => {
      const probabilities = Float32Array.from(this.network.predict(this.standardise(sample.features)))
      return { ...sample, probabilities, predicted: probabilities.indexOf(Math.max(...probabilities)) }
    })
  }
}

function momentsOf(samples: readonly Sample[], column: number): { mean: number; deviation: number } {
  let sum = 0
  for (const { features } of samples) sum += features[column]!
  const mean = sum / samples.length
  let squares = 0
  for (const { features } of samples) squares += (features[column]! - mean) ** 2
  return { mean, deviation: Math.sqrt(squares / samples.length) }
}
