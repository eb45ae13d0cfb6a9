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
  /** Of a folder: that of the newest thing in it, so that a folder being written is young. */
  mtimeNs: bigint
  /** The glob that allows it. */
  readonly rule: string
  /** The prunable folder that it is in, and with which it goes. */
  readonly owner: Entry | undefined
  /** Charged bytes that come free with it, provided that everything older is pruned before. */
  bytes = 0
  /** Charged bytes that are nowhere else; the rest are hard links. */
  ownBytes = 0
  readonly inodes: Inode[] = []

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
    if (inode) this.inodes.push(inode)
    else this.ownBytes += bytes
  }
}

/**
 * From all that the rules allow, what may go, oldest first: by modification time, then by name with numbers compared
 * as numbers (`epoch-9` before `epoch-10`), then by the bytes of the path. Left out are the files in `keep`, under
 * whatever name, folders that hold one of them, and hard links whose other names stay, because they free nothing.
 */
export function listOldest(found: Entry[], keep: Iterable<string | Buffer>): Entry[] {
  const isKept = keeper(keep)
  const kept = new Set(found.filter(isKept))
  const entries = found.filter(entry => !kept.has(entry) && (!entry.owner || kept.has(entry.owner)))
  sortByAge(entries)
  return worthPruning(entries)
}

/** Of all entries that may go, oldest first, those with which bytes come free: no hard link of which a name stays. */
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
  return entries.filter(({ ownBytes, inodes }) => ownBytes > 0 || inodes.some(isWhole))
}

function sortByAge(entries: Entry[]): void {
  const keys = new Map<Entry, Bytes>()
  const keyOf = (entry: Entry) => {
    const key = keys.get(entry) ?? naturalKey(entry.name)
    keys.set(entry, key)
    return key
  }
  entries.sort(
    (a, b) =>
      compare(a.mtimeNs, b.mtimeNs) ||
      compare(keyOf(a), keyOf(b)) ||
      compare(`${a.folder}/${a.name}`, `${b.folder}/${b.name}`),
  )
}

function keeper(keep: Iterable<string | Buffer>): (entry: Entry) => boolean {
  const paths = new Set<Bytes>()
  const folders = new Set<Bytes>()
  const ids = new Set<string>()
  for (const file of keep) {
    const path = canonical(Buffer.from(file as string).toString('latin1'))
    paths.add(path)
    for (let folder = dirname(path); !folders.has(folder); folder = dirname(folder)) folders.add(folder)
    const stats = reachable(() => lstatSync(native(path), { bigint: true }))
    if (stats) ids.add(inodeId(stats))
  }
  if (!paths.size) return () => false
  return entry => {
    let path = `${entry.folder}/${entry.name}`
    if (folders.has(path) || ids.has(inodeId(entry)) || entry.inodes.some(({ id }) => ids.has(id)))
      return true
    while (path.length > 1 && !paths.has(path)) path = dirname(path)
    return path.length > 1
  }
}

/** Spelled without links above it, as measured paths are; a path that cannot be reached stays as it is. */
function canonical(path: Bytes): Bytes {
  const folder = reachable(() => realpathSync.native(native(dirname(path)), 'latin1'))
  return folder === undefined ? path : join(folder, basename(path))
}

/** What `look` says of a path; nothing of one that leads nowhere or, as a measured path may, on beyond PATH_MAX. */
function reachable<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ENAMETOOLONG')) return undefined
    throw error
  }
}

/** Orders as text what should be ordered with numbers compared as numbers: each is preceded by its length. */
function naturalKey(name: Bytes): Bytes {
  return name.replace(/0*(\d+)/g, (_, digits: string) => String.fromCharCode(digits.length) + digits)
}

function compare<T extends bigint | string>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0
}
