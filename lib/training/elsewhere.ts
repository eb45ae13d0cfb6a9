import { type Crew, hasLostAny } from './process.ts'
import type { Counters } from './unfound.ts'

/** A training that stands still, and what is in its folder: bytes on the disk. */
export type Standing = { counters: Counters; crew: Crew | undefined; folderBytes: number }

/** Growth between two notes that nobody's writing needs to explain. */
const SLOW_BYTES = 64 * 1024
/**
 * So much may come of names in folders, which nobody counts as written, while the disk grows and the training has a processor:
 * 13 MiB a second were the most that was seen on ext4.
 */
const NAMES_BYTES_PER_MS = 64 * 1024

/**
 * Bounds what a training has of a disk outside of its folder: in deleted files, wherever it holds them. At most it has there what
 * it had before, what it has written since, and what is no longer in the folder. So nobody is charged for what others write.
 */
export class Elsewhere {
  #before: Standing
  #bytes = 0
  /** How much the disk has grown fast since then, and for how long; and the last note. */
  #fast = { bytes: 0, ms: 0 }
  #last: { accountBytes: number; ms: number }

  /** @param before the training began */
  constructor(before: Standing, ms: number) {
    this.#before = before
    this.#last = { ...before.counters, ms }
  }

  /** Note how full the disk is, often: what comes slowly may be names, and what comes at once is not. */
  note(accountBytes: number, ms: number): void {
    const grownBytes = accountBytes - this.#last.accountBytes
    if (grownBytes > SLOW_BYTES) {
      this.#fast.bytes += grownBytes
      this.#fast.ms += ms - this.#last.ms
    }
    this.#last = { accountBytes, ms }
  }

  /** How much it is now, at most. */
  mostBytes({ counters, crew, folderBytes }: Standing, ms: number): number {
    this.note(counters.accountBytes, ms)
    const before = this.#before
    const fast = this.#fast
    const slowBytes = counters.accountBytes - before.counters.accountBytes - fast.bytes
    const writtenBytes = counters.writtenBytes - before.counters.writtenBytes
    const ranMs =
      before.crew && crew && !hasLostAny(before.crew, crew) ? crew.ranMs - before.crew.ranMs : Number.NaN
    const isKnown = !Number.isNaN(writtenBytes + ranMs)
    const grownBytes = isKnown
      ? Math.min(
          slowBytes + Math.min(fast.bytes, writtenBytes + NAMES_BYTES_PER_MS * fast.ms),
          writtenBytes + NAMES_BYTES_PER_MS * ranMs,
        )
      : slowBytes + fast.bytes
    return Math.max(0, this.#bytes + grownBytes - (folderBytes - before.folderBytes))
  }

  /** Go on from here: so many bytes it is. */
  set(now: Standing, bytes: number, ms: number): void {
    this.#before = now
    this.#bytes = bytes
    this.#fast = { bytes: 0, ms: 0 }
    this.#last = { ...now.counters, ms }
  }
}
