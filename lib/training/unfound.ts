/** What the kernel has counted by a moment. */
export type Counters = {
  /** Bytes that the training's processes have made it write; NaN if they keep others out. */
  writtenBytes: number
  /** Bytes that the filesystem holds, whoever wrote them. */
  accountBytes: number
}

/**
 * Compares what a training writes with what looks at its folder find, while it moves. A file that is on its way through a
 * socket, or that another thread has closed, no look finds. The training is killed for the result, so each doubt is decided for it.
 */
export class Unfound {
  /** As the first look left them. */
  #since: (Counters & { foundBytes: number }) | undefined
  readonly #countsAtOnce: boolean

  /** @param countsAtOnce does the filesystem count at once what is written? */
  constructor(countsAtOnce: boolean) {
    this.#countsAtOnce = countsAtOnce
  }

  /** Begin anew: something else than the training has changed what is in the folder. */
  forget(): void {
    this.#since = undefined
  }

  /**
   * Note a look. It takes time in which the training goes on, and finds some of what is written meanwhile. So only what is
   * written between the end of the first look and the beginning of this one counts.
   *
   * @param before from before the look
   * @param after from after it
   * @returns bytes written since the first look that this one has not found
   */
  note(before: Counters, foundBytes: number, after: Counters): number {
    this.#since ??= { ...after, foundBytes }
    const byItself = before.writtenBytes - this.#since.writtenBytes
    // Others write too. They cannot be meant where the training has written nothing, nor it where the disk is no fuller.
    const byAll = before.accountBytes - this.#since.accountBytes
    const bySomebody = Number.isNaN(byItself) ? byAll : byItself
    const newBytes = this.#countsAtOnce ? Math.min(bySomebody, byAll) : bySomebody
    // A file that is gone, or was missed because it was renamed, has not been written by anybody.
    return Math.max(0, newBytes - Math.max(0, foundBytes - this.#since.foundBytes))
  }
}
