import { setImmediate as nextTurn } from 'node:timers/promises'

const SLICE_MS = 1

/** A share of time for synchronous work: a training at full speed writes two megabytes in it, and the guard must see that. */
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

  /**
   * Between two pieces of work: let everything else have its turn, if this one is over.
   *
   * @throws the reason of `signal`, if it is aborted
   */
  async giveWay(signal?: AbortSignal): Promise<void> {
    if (this.isOver()) await this.next()
    signal?.throwIfAborted()
  }
}
