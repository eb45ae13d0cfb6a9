import type { BigIntStats } from 'node:fs'
import { type Bytes, type Folder, PATH_MAX } from '../system/bytes.ts'
import { comparable, type Place } from './naming.ts'
import { RANK, type Rank, type Rule } from './rank.ts'

/** A file with several hard links: charged once, and free when the last of its names in the measured folder goes. */
export type Inode = {
  id: string
  bytes: number
  /** In the measured folder, and those of them that were pruned. */
  names: number
  pruned: number
}

/** A file, or a folder as one, that may be pruned. */
export class Entry {
  readonly #folder: Bytes
  /** Names its folder in little memory, as {@link Folder} has it. */
  readonly label: Bytes
  readonly name: Bytes
  readonly isFolder: boolean
  readonly dev: bigint
  readonly ino: bigint
  /** A folder has the time of the newest thing in it: one that is being written is young. */
  mtimeNs: bigint
  /** The same as far as it is believed. */
  timeNs: bigint
  /** The glob that allows it, or what else it is. */
  readonly rule: string
  readonly rank: Rank
  /** The prunable folder that it is in, and with which it goes. */
  readonly owner: Entry | undefined
  /** It, or something in it, must stay. */
  isKept = false
  /** Charged bytes that come free with it, provided that everything older is pruned before. */
  bytes = 0
  /** Charged bytes that are nowhere else; the rest are hard links. */
  ownBytes = 0
  /** Inodes that come free with it, besides those of hard links. */
  ownInodes = 0
  /** Its hard links. */
  inodes: Inode[] = none
  /** The entries that go or stay with it, itself among them: of every entry that is listed. */
  set!: PrunableSet
  #key: string | undefined
  /** A folder above it that goes and takes it along, the outermost that was met so far. */
  #taker: Entry | undefined

  constructor(
    { path, label }: Folder<unknown>,
    name: Bytes,
    stats: BigIntStats,
    timeNs: bigint,
    { name: rule, rank }: Rule,
    owner: Entry | undefined,
  ) {
    this.#folder = path
    this.label = label
    this.name = name
    this.isFolder = stats.isDirectory()
    this.dev = stats.dev
    this.ino = stats.ino
    this.mtimeNs = stats.mtimeNs
    this.timeNs = timeNs
    this.rule = rule
    this.rank = rank
    this.owner = owner
  }

  /** Absolute, byte by byte. */
  get path(): Buffer {
    return Buffer.from(this.pathBytes, 'latin1')
  }

  get pathBytes(): Bytes {
    return `${this.#folder}/${this.name}`
  }

  /** Is it deeper than a program can name? */
  get isDeep(): boolean {
    return this.#folder.length >= PATH_MAX
  }

  /** A deep one is cut out of a copy: cut itself it would no longer share its parts with the folders around it. */
  get folder(): Bytes {
    return this.isDeep ? this.pathBytes.slice(0, this.#folder.length) : this.#folder
  }

  /** Charge it with a file or folder that has one name. */
  add(bytes: number): void {
    this.ownBytes += bytes
    this.ownInodes++
  }

  /** Charge it with one of the names of an inode that has several. */
  link(inode: Inode): void {
    if (this.inodes === none) this.inodes = [inode]
    else this.inodes.push(inode)
  }

  /** Charge the folder that it goes with, if it goes with one, with all that it is charged with and has the time of. */
  fold(): void {
    const { owner } = this
    if (!owner) return
    owner.ownBytes += this.ownBytes
    owner.ownInodes += this.ownInodes
    owner.touch(this.mtimeNs, this.timeNs)
  }

  /** The entry that goes when it goes, itself or the outermost of the folders that take it along; undefined if it stays. */
  get goer(): Entry | undefined {
    if (this.isKept) return undefined
    let goer: Entry = this
    for (let taker = goer.#takenBy(); taker; taker = taker.#takenBy()) goer = taker
    // There may be thousands in one another.
    for (let entry: Entry | undefined = this; entry && entry !== goer; ) {
      const next: Entry | undefined = entry.#takenBy()
      entry.#taker = goer
      entry = next
    }
    return goer
  }

  #takenBy(): Entry | undefined {
    return this.#taker ?? (this.owner?.isKept ? undefined : this.owner)
  }

  /** Take the time of something in it, if that is newer: as it is, and as far as it is believed. */
  touch(mtimeNs: bigint, timeNs: bigint): void {
    if (mtimeNs > this.mtimeNs) this.mtimeNs = mtimeNs
    if (timeNs > this.timeNs) this.timeNs = timeNs
  }

  /** Orders names as text as if their numbers were compared as numbers. */
  get key(): string {
    this.#key ??= comparable(this.name)
    return this.#key
  }

  /** It stays, and so do the folders that it is in. */
  keep(): void {
    for (let entry: Entry | undefined = this; entry && !entry.isKept; entry = entry.owner) entry.isKept = true
  }
}

/** A link, or a file of a known name, that names a checkpoint. */
export type Pointer = { folder: Bytes; name: Bytes; isLink: boolean }

/** Entries that go or stay as one: the files and folders of a checkpoint, or a single entry of another kind. */
export class PrunableSet {
  /** The path that all of it begins with. */
  readonly path: Bytes
  readonly rank: Rank
  readonly entries: Entry[]
  /** The newest of its times, as far as they are believed. */
  timeNs = 0n
  /** By this it is ordered: no earlier than what comes before it by number. */
  orderNs = 0n
  /** Charged bytes and inodes, those of hard links among them. */
  bytes = 0
  inodes = 0
  /** The path of a link or file that names it as one to go on with; its own, if its name says so. */
  pointer: Bytes | undefined
  /** All links, and files for that alone, that do so. */
  readonly namedBy: Pointer[] = []
  /** Where it stands among those of its pattern, if it has a number. */
  readonly place: Place | undefined

  constructor(path: Bytes, first: Entry, place?: Place) {
    this.path = path
    this.rank = first.rank
    this.place = place
    // Most have one: to push it would take room for seventeen.
    this.entries = [first]
    this.#charge(first)
  }

  add(entry: Entry): void {
    this.entries.push(entry)
    this.#charge(entry)
  }

  #charge(entry: Entry): void {
    entry.set = this
    if (entry.timeNs > this.timeNs) this.timeNs = entry.timeNs
    this.bytes += entry.inodes.reduce((sum, inode) => sum + inode.bytes, entry.ownBytes)
    this.inodes += entry.ownInodes + entry.inodes.length
  }

  /** The path of the file or folder that it is, if it is one; else what all of its files begin with. */
  get shownPath(): Bytes {
    return this.entries.length === 1 ? this.entries[0]!.pathBytes : this.path
  }

  /** Is it a cache with nothing in it? To delete its folder gives no room, and a program would make it again at once. */
  get isEmptyCache(): boolean {
    return this.rank === RANK.cache && this.entries.every(isEmptyFolder)
  }
}

function isEmptyFolder({ isFolder, ownInodes, inodes }: Entry): boolean {
  return isFolder && ownInodes + inodes.length === 1
}

/** Shared by most entries, and never changed. */
const none: Inode[] = []

/**
 * Orders by what goes first, by time, then by name with numbers compared as numbers (`epoch-9` before `epoch-10`), then by
 * the bytes of the path.
 */
export function compareAge(a: Entry, b: Entry): number {
  return (
    a.rank - b.rank ||
    compare(a.timeNs, b.timeNs) ||
    compare(a.key, b.key) ||
    compare(`${a.label}/${a.name}`, `${b.label}/${b.name}`)
  )
}

export function compare<T extends bigint | string>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0
}
