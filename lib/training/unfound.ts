/** The kernel's counters at a moment. */
export type Counters = {
  /** Bytes that the training's processes have made it write; NaN if they keep others out. */
  writtenBytes: number
  /** Bytes that the filesystem holds, whoever wrote them. */
  accountBytes: number
}

/** The result of a look: as it is charged, and as it is on the disk. */
type Found = { usedBytes: number; allocatedBytes: number }

/**
 * Compares what a training writes with what looks at its folder find, while it moves. No look finds a file that is on its way
 * through a socket, or that another thread has closed. The training is killed for the result, so each doubt is decided for it.
 */
export class Unfound {
  /** As the first look left them. */
  #since: (Counters & Found) | undefined
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
  note(before: Counters, { usedBytes, allocatedBytes }: Found, after: Counters): number {
    this.#since ??= { ...after, usedBytes, allocatedBytes }
    const newBytes = bytesBetween(this.#since, before, this.#countsAtOnce)
    // A sparse file is charged before it is filled, and a compressed one takes less than was written. A file that is gone, or
    // was missed because it was renamed, has not been written by anybody.
    const foundBytes = Math.max(
      0,
      usedBytes - this.#since.usedBytes,
      allocatedBytes - this.#since.allocatedBytes,
    )
    return Math.max(0, newBytes - foundBytes)
  }
}

/**
 * Tell how many bytes a training has written between two moments, at most. Others write too: they cannot be meant where it has
 * written nothing, nor it where the disk is no fuller.
 *
 * @param countsAtOnce does the filesystem count at once what is written?
 */
export function bytesBetween(first: Counters, last: Counters, countsAtOnce: boolean): number {
  const byItself = last.writtenBytes - first.writtenBytes
  const byAll = last.accountBytes - first.accountBytes
  const bySomebody = Number.isNaN(byItself) ? byAll : byItself
  return countsAtOnce ? Math.min(bySomebody, byAll) : bySomebody
}
