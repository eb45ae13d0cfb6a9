import { lstatSync, realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isErrno } from './errors.ts'
import { type Bytes, native } from './tree.ts'

/** A file with several hard links: charged once, and free when the last of its names in the measured folder goes. */
export type Inode = {
  id: string
  bytes: number
  /** In the measured folder; of these, those that are prunable, and those that were pruned. */
  names: number
  prunable: number
  pruned: number
}

/** A file, or a folder as one, that may be pruned. */
export type Entry = {
  /** Absolute, byte by byte. */
  path: Buffer
  isFolder: boolean
  dev: bigint
  ino: bigint
  /** Of a folder: that of the newest thing in it, so that a folder being written is young. */
  mtimeNs: bigint
  /** The glob that allows it. */
  rule: string
  /** Charged bytes that come free with it, provided that everything older is pruned before. */
  bytes: number
  /** Charged bytes that are nowhere else; the rest are hard links. */
  ownBytes: number
  inodes: Inode[]
  /** The prunable folder that it is in, and with which it goes. */
  owner: Entry | undefined
}

/** Tells which rule allows a name to be pruned, if any does; `any` is for a name of which nothing else is known. */
export type RuleOf = (folder: Bytes, name: Bytes, kind: 'file' | 'folder' | 'any') => string | undefined

/** The trainer's output folder, below a job's. */
const WORK = 'work'

/**
 * Make the rules for what is below `root`: files `*.checkpoint` and `*.tmp` at any depth, and whatever matches one
 * of `globs`, which are relative to `root` and to its `work/`. The folders `work` and `work/tmp` themselves never match.
 */
export async function compileRules(root: Bytes, globs: string[]): Promise<RuleOf> {
  const matches = globs.length ? await compileGlobs(globs) : undefined
  const fixed = new Set([join(root, WORK), join(root, WORK, 'tmp')])
  return (folder, name, kind) => {
    if (kind !== 'folder') {
      if (name.endsWith('.checkpoint')) return '*.checkpoint'
      if (name.endsWith('.tmp')) return '*.tmp'
    }
    if (!matches) return undefined
    const path = `${folder}/${name}`
    if (fixed.has(path)) return undefined
    const relative = Buffer.from(path.slice(root.length + 1), 'latin1').toString()
    const rule = matches(relative, kind)
    return (
      rule ?? (relative.startsWith(`${WORK}/`) ? matches(relative.slice(WORK.length + 1), kind) : undefined)
    )
  }
}

async function compileGlobs(globs: string[]) {
  const { default: picomatch } = await import('picomatch')
  // Without the flag, `**` would not match a name with a line break.
  const rules = globs.map(glob => ({ glob, matches: picomatch(glob, { dot: true, flags: 's' }) }))
  return (path: string, kind: 'file' | 'folder' | 'any') =>
    rules.find(({ matches }) => matches(path) || (kind !== 'file' && matches(`${path}/`)))?.glob
}

/** Does `path` lie in the trainer's output folder? */
export function isInWork(root: Bytes, path: Buffer): boolean {
  return path.toString('latin1').startsWith(`${root}/${WORK}/`)
}

/**
 * From all that the rules allow, what may go, oldest first: by modification time, then by name with numbers compared
 * as numbers (`epoch-9` before `epoch-10`), then by the bytes of the path. Left out are the files in `keep`, under
 * whatever name, folders that hold one of them, and hard links whose other names stay, because they free nothing.
 */
export function listOldest(found: Entry[], keep: Iterable<string | Buffer>): Entry[] {
  const isKept = keeper(keep)
  const kept = new Set(found.filter(isKept))
  const entries = found
    .filter(entry => !kept.has(entry) && (entry.owner === undefined || kept.has(entry.owner)))
    .map(entry => ({ entry, key: naturalKey(entry.path) }))
    .sort(
      (a, b) =>
        compare(a.entry.mtimeNs, b.entry.mtimeNs) ||
        compare(a.key, b.key) ||
        Buffer.compare(a.entry.path, b.entry.path),
    )
    .map(({ entry }) => entry)

  for (const entry of entries) {
    entry.bytes = entry.ownBytes
    for (const inode of entry.inodes) if (++inode.prunable === inode.names) entry.bytes += inode.bytes
  }
  return entries.filter(
    ({ ownBytes, inodes }) => ownBytes > 0 || inodes.some(inode => inode.prunable === inode.names),
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
    const stats = lstatSync(native(path), { throwIfNoEntry: false, bigint: true })
    if (stats) ids.add(inodeId(stats))
  }
  return entry => {
    let path = entry.path.toString('latin1')
    if (folders.has(path) || ids.has(inodeId(entry)) || entry.inodes.some(({ id }) => ids.has(id)))
      return true
    while (path.length > 1 && !paths.has(path)) path = dirname(path)
    return path.length > 1
  }
}

/** Spelled without links above it, as measured paths are; a path that leads nowhere stays as it is. */
function canonical(path: Bytes): Bytes {
  try {
    return join(realpathSync.native(native(dirname(path)), 'latin1'), basename(path))
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return path
    throw error
  }
}

/** Names a file whatever it is called. */
export function inodeId({ dev, ino }: { dev: bigint; ino: bigint }): string {
  return `${dev}:${ino}`
}

/** Orders as text what should be ordered with numbers compared as numbers: each is preceded by its length. */
function naturalKey(path: Buffer): string {
  const name = basename(path.toString('latin1'))
  return name.replace(/0*(\d+)/g, (_, digits: string) => String.fromCharCode(digits.length) + digits)
}

function compare<T extends bigint | string>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0
}
