const LONGEST_MS = 60_000
const GROWTH = 1.5
/** Take at most one part in so many of the controller's time. */
const REST = 10

/**
 * How often Slurm is asked: from the first interval, growing to a minute while nothing changes, and ten times as long as
 * an answer takes at least.
 */
export class Pace {
  readonly #firstMs: number
  #intervalMs: number
  #tookMs = 0
  #askedAtMs = Number.NEGATIVE_INFINITY

  constructor(firstMs: number) {
    this.#firstMs = firstMs
    this.#intervalMs = firstMs
  }

  /** Is it time to ask? A hint that something has changed makes it the first interval again. */
  isDue(nowMs: number, hasHint: boolean): boolean {
    if (hasHint) this.#intervalMs = this.#firstMs
    return nowMs - this.#askedAtMs >= Math.max(this.#intervalMs, REST * this.#tookMs)
  }

  /** An answer has come, and took so long; nothing is known of the time that none takes. */
  take(nowMs: number, tookMs: number, hasChanged: boolean): void {
    this.#askedAtMs = nowMs
    this.#tookMs = tookMs
    const longestMs = Math.max(LONGEST_MS, this.#firstMs)
    this.#intervalMs = hasChanged ? this.#firstMs : Math.min(this.#intervalMs * GROWTH, longestMs)
  }
}
