import { type BigIntStats, lstatSync, realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isErrno } from '../errors.ts'
import { type Bytes, native } from '../system/bytes.ts'
import { inodeId } from '../system/plain-file.ts'

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
  readonly folder: Bytes
  readonly name: Bytes
  readonly isFolder: boolean
  readonly dev: bigint
  readonly ino: bigint
  /** A folder has the time of the newest thing in it: one that is being written is young. */
  mtimeNs: bigint
  /** The glob that allows it. */
  readonly rule: string
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
  #key: Bytes | undefined

  constructor(folder: Bytes, name: Bytes, stats: BigIntStats, rule: string, owner: Entry | undefined) {
    this.folder = folder
    this.name = name
    this.isFolder = stats.isDirectory()
    this.dev = stats.dev
    this.ino = stats.ino
    this.mtimeNs = stats.mtimeNs
    this.rule = rule
    this.owner = owner
  }

  /** Absolute, byte by byte. */
  get path(): Buffer {
    return Buffer.from(`${this.folder}/${this.name}`, 'latin1')
  }

  /** Charge it with a file: with the bytes, or with one of the names of an inode that has several. */
  add(bytes: number, inode: Inode | undefined): void {
    if (!inode) {
      this.ownBytes += bytes
      this.ownInodes++
    } else if (this.inodes === none) this.inodes = [inode]
    else this.inodes.push(inode)
  }

  /** Orders names as text as if their numbers were compared as numbers: each is preceded by its length. */
  get key(): Bytes {
    this.#key ??= this.name.replace(
      /0*(\d+)/g,
      (_, digits: string) => String.fromCharCode(digits.length) + digits,
    )
    return this.#key
  }

  /** It stays, and so do the folders that it is in. */
  keep(): void {
    for (let entry: Entry | undefined = this; entry && !entry.isKept; entry = entry.owner) entry.isKept = true
  }
}

/** Shared by most entries, and never changed. */
const none: Inode[] = []

/** So many entries are listed of a folder that has more: enough to free what is needed, and small in memory. */
export const MOST_ENTRIES = 16_384

/**
 * Collects what may be pruned, and keeps the oldest of it: at most twice `most`, however much there is. Left out are
 * entries that must stay, and those that go with a folder.
 */
export class OldestEntries {
  /** Has any been left out for being too young? */
  isCut = false
  readonly #most: number
  #entries: Entry[] = []
  /** The oldest of those that were left out is no older than this. */
  #youngest: Entry | undefined

  constructor(most: number) {
    this.#most = most
  }

  add(entry: Entry): void {
    if (this.#youngest && compareAge(entry, this.#youngest) > 0) return
    this.#entries.push(entry)
    if (this.#entries.length >= 2 * this.#most) this.#cut()
  }

  /** The entries that are left, oldest first. */
  list(): Entry[] {
    const youngest = this.#youngest
    // A folder may have become younger since it was found.
    const entries = this.#entries.filter(
      entry => goesAlone(entry) && !(youngest && compareAge(entry, youngest) > 0),
    )
    return entries.sort(compareAge)
  }

  #cut(): void {
    this.#entries = this.#entries.filter(goesAlone)
    if (this.#entries.length < 2 * this.#most) return
    // Sorting all of them would hold up everything else.
    const step = Math.ceil(this.#entries.length / 512)
    const sample = this.#entries.filter((_, index) => index % step === 0).sort(compareAge)
    const youngest = sample[sample.length >> 1]!
    this.#youngest = youngest
    this.#entries = this.#entries.filter(entry => compareAge(entry, youngest) <= 0)
    this.isCut = true
  }
}

function goesAlone({ isKept, owner }: Entry): boolean {
  return !isKept && (!owner || owner.isKept)
}

/**
 * Keep those entries, oldest first, whose removal frees anything: a hard link frees nothing while
 * another of its names remains.
 */
export function worthPruning(entries: Entry[]): Entry[] {
  const names = new Map<Inode, number>()
  for (const entry of entries) {
    entry.bytes = entry.ownBytes
    for (const inode of entry.inodes) {
      const count = (names.get(inode) ?? 0) + 1
      names.set(inode, count)
      if (count === inode.names) entry.bytes += inode.bytes
    }
  }
  const isWhole = (inode: Inode) => names.get(inode) === inode.names
  return entries.filter(({ ownInodes, inodes }) => ownInodes > 0 || inodes.some(isWhole))
}

/**
 * Orders by modification time, then by name with numbers compared as numbers (`epoch-9` before `epoch-10`), then by
 * the bytes of the path.
 */
function compareAge(a: Entry, b: Entry): number {
  return (
    compare(a.mtimeNs, b.mtimeNs) ||
    compare(a.key, b.key) ||
    compare(`${a.folder}/${a.name}`, `${b.folder}/${b.name}`)
  )
}

/** Tells of an entry whether it is kept: it, under whatever name, or a folder that it is in or that is above it. */
export class Keeper {
  readonly #paths = new Set<Bytes>()
  readonly #folders = new Set<Bytes>()
  readonly #ids = new Set<string>()

  constructor(keep: Iterable<string | Buffer>) {
    for (const file of keep) {
      const path = canonical(Buffer.from(file as string).toString('latin1'))
      this.#paths.add(path)
      for (let folder = dirname(path); !this.#folders.has(folder); folder = dirname(folder))
        this.#folders.add(folder)
      const stats = reachable(() => lstatSync(native(path), { bigint: true }))
      if (stats) this.#ids.add(inodeId(stats))
    }
  }

  keeps(entry: Entry): boolean {
    if (!this.#paths.size) return false
    let path = `${entry.folder}/${entry.name}`
    if (this.#folders.has(path) || this.keepsInode(entry)) return true
    while (path.length > 1 && !this.#paths.has(path)) path = dirname(path)
    return path.length > 1
  }

  keepsInode(inode: Record<'dev' | 'ino', bigint>): boolean {
    return this.#ids.size > 0 && this.#ids.has(inodeId(inode))
  }
}

/** Spelled without links above it, as measured paths are; a path that cannot be reached stays as it is. */
function canonical(path: Bytes): Bytes {
  const folder = reachable(() => realpathSync.native(native(dirname(path)), 'latin1'))
  return folder === undefined ? path : join(folder, basename(path))
}

/** Call `look`; undefined for a path that leads nowhere or, as a measured path may, on beyond PATH_MAX. */
function reachable<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ENAMETOOLONG')) return undefined
    throw error
  }
}

function compare<T extends bigint | string>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0
}
