import { type Crew, hasLostAny } from './process.ts'
import { bytesBetween, type Counters } from './unfound.ts'

/** A training that stands still, and what is in its folder: bytes on the disk. */
export type Standing = { counters: Counters; crew: Crew | undefined; folderBytes: number }

/**
 * Bounds what a training has of a disk outside of its folder: in deleted files, wherever it holds them. At most it has there what
 * it had before, what it has written since, and what is no longer in the folder. So nobody is charged for what others write.
 */
export class Elsewhere {
  readonly #countsAtOnce: boolean
  #before: Standing
  #bytes = 0

  /**
   * @param before the training began
   * @param countsAtOnce does the filesystem count at once what is written?
   */
  constructor(before: Standing, countsAtOnce: boolean) {
    this.#before = before
    this.#countsAtOnce = countsAtOnce
  }

  /** How much it is now, at most. */
  mostBytes(now: Standing): number {
    const before = this.#before
    const isWhole = before.crew && now.crew && !hasLostAny(before.crew, now.crew)
    const counters = isWhole ? now.counters : { ...now.counters, writtenBytes: Number.NaN }
    const writtenBytes = bytesBetween(before.counters, counters, this.#countsAtOnce)
    return Math.max(0, this.#bytes + writtenBytes - (now.folderBytes - before.folderBytes))
  }

  /** Go on from here: so many bytes it is. */
  set(now: Standing, bytes: number): void {
    this.#before = now
    this.#bytes = bytes
  }
}
