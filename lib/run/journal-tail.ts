import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainerEvent } from '../events.ts'
import { MIB } from '../text.ts'
import { parseLine } from './past-events.ts'

/** More than a run writes between two looks; of what is more than that, the next look takes the rest. */
const MAX_READ_BYTES = 4 * MIB

/** A place in a journal: the file, and the bytes of it that are read. */
export type JournalPlace = { inode: number; bytes: number }

/** Where a journal ends now; what is appended later comes after it. */
export function endOfJournal(stateDir: string): JournalPlace {
  const stats = statOf(join(stateDir, 'events.jsonl'))
  return { inode: stats?.ino ?? 0, bytes: stats?.size ?? 0 }
}

/** Reads what is appended to a journal from a place on, while somebody else writes it, through its rotation too. */
export class JournalTail {
  readonly #path: string
  #place: JournalPlace

  constructor(stateDir: string, from: JournalPlace) {
    this.#path = join(stateDir, 'events.jsonl')
    this.#place = from
  }

  /** Take the events that came since the last call; an unchanged journal costs one call of the system. */
  read(): TrainerEvent[] {
    const stats = statOf(this.#path)
    if (!stats || (stats.ino === this.#place.inode && stats.size === this.#place.bytes)) return []
    const events: TrainerEvent[] = []
    if (stats.ino !== this.#place.inode) {
      // The rest of the one that was rotated away, if this is how the new one came here.
      this.#readFrom(`${this.#path}.1`, this.#place, events)
      this.#place = { inode: stats.ino, bytes: 0 }
    }
    this.#place.bytes = this.#readFrom(this.#path, this.#place, events)
    return events
  }

  /** @returns how far whole lines were read */
  #readFrom(path: string, { inode, bytes }: JournalPlace, events: TrainerEvent[]): number {
    let fd: number
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    } catch {
      return bytes // gone or not readable for a moment: the next look tries again
    }
    try {
      const { ino, size } = fstatSync(fd)
      if (ino !== inode || size <= bytes) return bytes
      const content = Buffer.alloc(Math.min(size - bytes, MAX_READ_BYTES))
      const read = content.subarray(0, readSync(fd, content, 0, content.length, bytes))
      const end = read.lastIndexOf(10) + 1
      for (const line of read.toString('utf8', 0, end).split('\n')) {
        const event = line && parseLine(line)
        if (event) events.push(event)
      }
      // A line longer than all of it is none of ours.
      return bytes + (end || (read.length === MAX_READ_BYTES ? read.length : 0))
    } finally {
      closeSync(fd)
    }
  }
}

/** Try again at the next look: a server that is away for a moment tells nothing. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}
