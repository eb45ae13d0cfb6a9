import { setImmediate as nextTurn } from 'node:timers/promises'

const SLICE_MS = 4

/** A share of time for synchronous work: short enough for a live screen, and for signals to be heard. */
export class Slice {
  #endMs = performance.now() + SLICE_MS

  isOver(): boolean {
    return performance.now() > this.#endMs
  }

  /** Let everything else have its turn, and begin another. */
  async next(): Promise<void> {
    await nextTurn()
    this.#endMs = performance.now() + SLICE_MS
  }
}
