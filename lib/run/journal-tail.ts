import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import { isSystemError } from '../errors.ts'
import type { TrainerEvent } from '../events.ts'
import { MIB } from '../text.ts'
import { parseLine } from './past-events.ts'

/** More than a run writes between two looks; of what is more than that, the next look takes the rest. */
const MAX_READ_BYTES = 4 * MIB
/** No look comes back to a file that was rotated away. The journal keeps it at half of this. */
const MAX_ROTATED_BYTES = 16 * MIB
/** The time and the run of a journal's first event have so many bytes. */
const HEAD_BYTES = 80

/**
 * A place in a journal: the file, and the bytes of it that are read. The file is known by its inode and its first bytes:
 * at a rotation the new one often gets the inode of the one that is deleted.
 */
export type JournalPlace = { inode: number; head: string; bytes: number }

/** Where a journal ends now; what is appended later comes after it. */
export function endOfJournal(stateDir: string): JournalPlace {
  const file = openJournal(join(stateDir, 'events.jsonl'))
  if (!file) return { inode: 0, head: '', bytes: 0 }
  closeSync(file.fd)
  return { inode: file.inode, head: file.head, bytes: file.size }
}

/** Reads what is appended to a journal from a place on, while somebody else writes it, through its rotations too. */
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
    const file = openJournal(this.#path)
    if (!file) return []
    try {
      const events: TrainerEvent[] = []
      const { inode, head } = file
      const isOurs = isPlaceIn(file, this.#place)
      if (!isOurs) this.#readRotated(file, events)
      const bytes = readFrom(file, isOurs ? this.#place.bytes : 0, MAX_READ_BYTES, events)
      this.#place = { inode, head, bytes }
      return events
    } catch (error) {
      if (isSystemError(error)) return [] // the next look tries again from the same place
      throw error
    } finally {
      closeSync(file.fd)
    }
  }

  /** Take what came after our place in the file before this one: all of it, where our place was in one before that. */
  #readRotated(newer: JournalFile, events: TrainerEvent[]): void {
    const file = openJournal(`${this.#path}.1`)
    if (!file) return
    try {
      // The newer one was rotated meanwhile: it is read as that.
      if (file.inode === newer.inode) return
      readFrom(file, isPlaceIn(file, this.#place) ? this.#place.bytes : 0, MAX_ROTATED_BYTES, events)
    } finally {
      closeSync(file.fd)
    }
  }
}

type JournalFile = { fd: number; inode: number; size: number; head: string }

/** Open a file of a journal, for the caller to close; undefined if it is gone or not readable for a moment, or no file. */
function openJournal(path: string): JournalFile | undefined {
  let fd: number | undefined
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const stats = fstatSync(fd)
    if (stats.isFile()) {
      const head = readBytes(fd, 0, HEAD_BYTES).toString('latin1')
      return { fd, inode: stats.ino, size: stats.size, head }
    }
  } catch {
    // The next look tries again.
  }
  if (fd !== undefined) closeSync(fd)
  return undefined
}

function isPlaceIn({ inode, size, head }: JournalFile, place: JournalPlace): boolean {
  return inode === place.inode && size >= place.bytes && head.startsWith(place.head)
}

/** @returns how far whole lines were read */
function readFrom({ fd, size }: JournalFile, from: number, maxBytes: number, events: TrainerEvent[]): number {
  if (size <= from) return from
  const read = readBytes(fd, from, Math.min(size - from, maxBytes))
  const end = read.lastIndexOf(10) + 1
  for (const line of read.toString('utf8', 0, end).split('\n')) {
    const event = line && parseLine(line)
    if (event) events.push(event)
  }
  // A line longer than all of it is none of ours.
  return from + (end || (read.length === maxBytes ? read.length : 0))
}

function readBytes(fd: number, from: number, length: number): Buffer {
  const content = Buffer.alloc(length)
  return content.subarray(0, readSync(fd, content, 0, length, from))
}

/** Try again at the next look: a server that is away for a moment tells nothing. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}
