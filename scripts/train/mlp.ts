import type { Random } from './random.ts'

/** Standardised rows, one after another, and the index of each row's class. */
export type Matrix = { rows: Float32Array; labels: Uint8Array; width: number }

/** A layer: from `offset` in `weights` a matrix [outputs × inputs], row by row, then one bias an output. */
type Layer = { inputs: number; outputs: number; offset: number }

const adam = { decay1: 0.9, decay2: 0.999, epsilon: 1e-8, weightDecay: 0.1 }

/**
 * A multilayer perceptron with ReLU between layers and softmax at the end, trained on cross-entropy by Adam with
 * decoupled weight decay. Weights are float32, as in the exported model; sums are double. The three arrays and `steps`
 * are its whole state.
 */
export class Mlp {
  readonly layers: Layer[]
  readonly weights: Float32Array
  readonly moment1: Float32Array
  readonly moment2: Float32Array
  steps = 0
  readonly #gradient: Float64Array
  readonly #activations: Float64Array[]
  readonly #deltas: Float64Array[]

  /** @param sizes the widths of the layers, from the input to the classes */
  constructor(sizes: readonly number[], random: Random) {
    let offset = 0
    this.layers = sizes.slice(1).map((outputs, index) => {
      const layer = { inputs: sizes[index]!, outputs, offset }
      offset += outputs * (layer.inputs + 1)
      return layer
    })
    this.weights = new Float32Array(offset)
    this.moment1 = new Float32Array(offset)
    this.moment2 = new Float32Array(offset)
    this.#gradient = new Float64Array(offset)
    this.#activations = sizes.map(size => new Float64Array(size))
    this.#deltas = sizes.map(size => new Float64Array(size))
    for (const { inputs, outputs, offset: start } of this.layers) {
      const deviation = Math.sqrt(2 / inputs)
      for (let at = start; at < start + inputs * outputs; at++) this.weights[at] = random.normal(0, deviation)
    }
  }

  /** Return the probability of each class. The next call reuses the array. */
  predict(rows: Float32Array, start = 0): Float64Array {
    const input = this.#activations[0]!
    for (let at = 0; at < input.length; at++) input[at] = rows[start + at]!
    this.layers.forEach((layer, index) => {
      this.#forward(layer, this.#activations[index]!, this.#activations[index + 1]!)
      if (index < this.layers.length - 1) rectify(this.#activations[index + 1]!)
    })
    const output = this.#activations.at(-1)!
    softmax(output)
    return output
  }

  /** Train by one pass over all rows in random order. Returns the mean cross-entropy in nats. */
  trainEpoch({ rows, labels, width }: Matrix, random: Random, rate: number, batchSize = 32): number {
    const order = random.shuffle(Uint32Array.from(labels.keys()))
    let loss = 0
    for (let start = 0; start < order.length; start += batchSize) {
      const batch = order.subarray(start, start + batchSize)
      this.#gradient.fill(0)
      for (const row of batch) {
        const label = labels[row]!
        loss -= Math.log(Math.max(this.predict(rows, row * width)[label]!, 1e-12))
        this.#backward(label)
      }
      this.#step(rate, batch.length)
    }
    return loss / labels.length
  }

  #forward({ inputs, outputs, offset }: Layer, from: Float64Array, to: Float64Array): void {
    const { weights } = this
    const biases = offset + inputs * outputs
    for (let out = 0, at = offset; out < outputs; out++) {
      let sum = weights[biases + out]!
      for (let input = 0; input < inputs; input++) sum += weights[at++]! * from[input]!
      to[out] = sum
    }
  }

  /** Add the gradient of the row that was just predicted. */
  #backward(label: number): void {
    const { weights } = this
    const gradient = this.#gradient
    const delta = this.#deltas.at(-1)!
    delta.set(this.#activations.at(-1)!)
    delta[label]! -= 1
    for (let index = this.layers.length - 1; index >= 0; index--) {
      const { inputs, outputs, offset } = this.layers[index]!
      const from = this.#activations[index]!
      const above = this.#deltas[index + 1]!
      const below = this.#deltas[index]!
      const biases = offset + inputs * outputs
      below.fill(0)
      for (let out = 0; out < outputs; out++) {
        const error = above[out]!
        if (error === 0) continue
        gradient[biases + out]! += error
        for (let input = 0, at = offset + out * inputs; input < inputs; input++, at++) {
          gradient[at]! += error * from[input]!
          below[input]! += error * weights[at]!
        }
      }
      for (let input = 0; input < inputs; input++) if (from[input] === 0) below[input] = 0
    }
  }

  #step(rate: number, rowCount: number): void {
    const { weights, moment1, moment2 } = this
    const gradient = this.#gradient
    this.steps++
    const correction1 = 1 - adam.decay1 ** this.steps
    const correction2 = 1 - adam.decay2 ** this.steps
    for (let at = 0; at < weights.length; at++) {
      const slope = gradient[at]! / rowCount
      moment1[at] = adam.decay1 * moment1[at]! + (1 - adam.decay1) * slope
      moment2[at] = adam.decay2 * moment2[at]! + (1 - adam.decay2) * slope * slope
      const size = Math.sqrt(moment2[at]! / correction2) + adam.epsilon
      weights[at]! -= rate * (moment1[at]! / correction1 / size + adam.weightDecay * weights[at]!)
    }
  }
}

function rectify(values: Float64Array): void {
  for (let at = 0; at < values.length; at++) if (values[at]! < 0) values[at] = 0
}

function softmax(values: Float64Array): void {
  const highest = Math.max(...values)
  let sum = 0
  for (let at = 0; at < values.length; at++) sum += values[at] = Math.exp(values[at]! - highest)
  for (let at = 0; at < values.length; at++) values[at]! /= sum
}
