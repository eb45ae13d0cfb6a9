import { createHash } from 'node:crypto'

/**
 * Seeded random numbers (xoshiro128**). The same seed and purpose give the same numbers on every machine. Unfit for
 * secrets.
 */
export class Random {
  /** The whole state: a checkpoint keeps a copy, and `new Random(copy)` goes on from there. */
  readonly state: Uint32Array

  constructor(state: Uint32Array) {
    this.state = Uint32Array.from(state)
  }

  /** Start a stream for one purpose: drawing more for it changes no other stream. */
  static seeded(seed: number, purpose: string): Random {
    const digest = createHash('sha256').update(`${seed} ${purpose}`).digest()
    return new Random(Uint32Array.from([0, 4, 8, 12], offset => digest.readUInt32LE(offset)))
  }

  /** Draw a number uniform in [0, 1). */
  next(): number {
    const s = this.state as unknown as [number, number, number, number]
    const result = Math.imul(rotateLeft(Math.imul(s[1], 5), 7), 9) >>> 0
    const shifted = s[1] << 9
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= shifted
    s[3] = rotateLeft(s[3], 11)
    return result / 2 ** 32
  }

  /** Draw a whole number in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.next() * limit)
  }

  /** Does an event of this probability happen? */
  chance(probability: number): boolean {
    return this.next() < probability
  }

  /** Draw one of `items`, which must not be empty. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!
  }

  bytes(count: number): Buffer {
    return Buffer.from(Array.from({ length: count }, () => this.below(256)))
  }

  uniform(low: number, high: number): number {
    return low + (high - low) * this.next()
  }

  /** Draw a number uniform in its logarithm: every order of magnitude is as likely. Both bounds must be above 0. */
  logUniform(low: number, high: number): number {
    return low * (high / low) ** this.next()
  }

  normal(mean = 0, deviation = 1): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.next()))
    return mean + deviation * radius * Math.cos(2 * Math.PI * this.next())
  }

  exponential(mean: number): number {
    return -mean * Math.log(1 - this.next())
  }

  /** Draw a count with this mean, above 30 by the normal approximation. */
  poisson(mean: number): number {
    if (mean > 30) return Math.max(0, Math.round(this.normal(mean, Math.sqrt(mean))))
    const limit = Math.exp(-mean)
    let count = 0
    for (let product = this.next(); product > limit; product *= this.next()) count++
    return count
  }

  /** Put `items` into a random order, in place, and return them. */
  shuffle<T extends unknown[] | Uint32Array>(items: T): T {
    for (let last = items.length - 1; last > 0; last--) {
      const other = this.below(last + 1)
      const kept = items[last]
      items[last] = items[other]!
      items[other] = kept!
    }
    return items
  }
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits))
}
