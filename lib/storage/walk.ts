import {
  type BigIntStats,
  closeSync,
  constants,
  type Dir,
  lstatSync,
  opendirSync,
  openSync,
  type Stats,
} from 'node:fs'
import { isErrno, TrainerError } from '../errors.ts'
import { type Bytes, escapeBytes, type Folder, native, PATH_MAX } from '../system/bytes.ts'
import { areOnOneMount } from '../system/mount-id.ts'
import { Slice } from '../system/slice.ts'

/** The action at each name of a walk. */
export type Visitor<T> = {
  /** Does `visit` need the nanoseconds and the full inode number? They take longer. */
  isExact: (folder: Folder<T>, name: Bytes) => boolean
  /** Called once a name; one that has several hard links comes exact. For a folder the result becomes its `data`. */
  visit: (folder: Folder<T>, name: Bytes, stats: Stats | BigIntStats) => T
  /** Called with a folder's data, if that is not that of the folder above, once everything in it was visited. */
  leave?: (data: T) => void
}

/** Opens a folder and nothing else: no link in its place, no FIFO. */
export const FOLDER_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

/** The system's words for a name that is gone, or has become another thing, since it was listed. */
export const VANISHED = ['ENOENT', 'ENOTDIR', 'ELOOP']

/** With one more name (255 bytes) below PATH_MAX (4096). */
const MAX_REACH_BYTES = 3800
/** The kernel looks up each name of a path, at every call. */
const MAX_STEPS = 64
/** Names that the system is asked for at a time. */
const NAMES_AT_A_TIME = 256

/** Folders that are still to be listed; and what is to be done once the folders above it are: descriptors, and data to be left. */
type Pending<T> = (Folder<T> | { close: number } | { leave: T })[]

/**
 * Visit everything below the folder `root`, in short slices with a turn of the event loop between them, and in
 * little memory, however many names a folder has. Links are never followed; paths may be longer than PATH_MAX. What
 * vanishes meanwhile is passed over, and what is renamed meanwhile may be visited twice or not at all.
 *
 * @returns what `root` itself is
 * @throws {TrainerError} `storage`: a folder cannot be read, or another filesystem is mounted on it; it is named
 * @throws the reason of `signal`, between slices
 */
export async function walk<T>(
  root: Bytes,
  data: T,
  visitor: Visitor<T>,
  signal?: AbortSignal,
): Promise<Stats> {
  const rootStats = statRoot(root)
  const top = { path: root, label: root, head: undefined, reach: root, steps: 0, data, isOwn: false }
  const pending: Pending<T> = [top]
  const devices = new Set([rootStats.dev])
  const headBytes = root.length + PATH_MAX / 2
  const slice = new Slice()
  try {
    for (let next = pending.pop(); next; next = pending.pop()) {
      if ('close' in next) {
        closeSync(next.close)
        continue
      }
      if ('leave' in next) {
        visitor.leave?.(next.leave)
        continue
      }
      if (next.isOwn) pending.push({ leave: next.data })
      const listing = enter(next, root, pending)
      if (!listing) continue
      try {
        for (let name = nextName(listing, next); name !== undefined; name = nextName(listing, next)) {
          visitName(next, name, headBytes, devices, visitor, pending)
          if (!slice.isOver()) continue
          await slice.next()
          signal?.throwIfAborted()
        }
      } finally {
        listing.close()
      }
    }
  } finally {
    for (const left of pending) if ('close' in left) closeSync(left.close)
  }
  return rootStats
}

function statRoot(root: Bytes): Stats {
  try {
    return lstatSync(native(root))
  } catch (cause) {
    throw unreadable(root, cause)
  }
}

/** Open a folder. One whose path is too long to go on with is reached through a descriptor from here on. */
function enter<T>(folder: Folder<T>, root: Bytes, pending: Pending<T>): Listing | undefined {
  try {
    if (folder.reach.length > MAX_REACH_BYTES || folder.steps > MAX_STEPS) {
      const close = openSync(native(folder.reach), FOLDER_FLAGS)
      pending.push({ close })
      folder.reach = `/proc/self/fd/${close}`
      folder.steps = 0
    }
    return new Listing(folder.reach)
  } catch (cause) {
    if (folder.path !== root && isErrno(cause, ...VANISHED)) return undefined
    throw unreadable(folder.path, cause)
  }
}

function nextName<T>(listing: Listing, { path }: Folder<T>): Bytes | undefined {
  try {
    return listing.nextName()
  } catch (cause) {
    if (isErrno(cause, ...VANISHED)) return undefined
    throw unreadable(path, cause)
  }
}

/** The names in a folder, one by one: a list of them all can take hundreds of milliseconds and megabytes. */
export class Listing {
  readonly #dir: Dir

  constructor(reach: Bytes) {
    // Node's types know no Buffer here.
    this.#dir = opendirSync(native(reach) as string, { encoding: 'latin1', bufferSize: NAMES_AT_A_TIME })
  }

  nextName(): Bytes | undefined {
    return this.#dir.readSync()?.name
  }

  close(): void {
    this.#dir.closeSync()
  }
}

function visitName<T>(
  folder: Folder<T>,
  name: Bytes,
  headBytes: number,
  devices: Set<number>,
  visitor: Visitor<T>,
  pending: Pending<T>,
): void {
  const reach = `${folder.reach}/${name}`
  const stats = look(folder, reach, visitor.isExact(folder, name))
  if (!stats) return
  const data = visitor.visit(folder, name, stats)
  if (!stats.isDirectory()) return
  const path = `${folder.path}/${name}`
  const device = Number(stats.dev)
  if (!devices.has(device)) {
    if (!isSubvolume(folder, reach)) {
      throw new TrainerError(
        'storage',
        `Cannot measure ${escapeBytes(path)}: another filesystem is mounted on it; unmount it or mount it elsewhere`,
      )
    }
    devices.add(device)
  }
  const head = folder.head ?? (path.length < PATH_MAX ? undefined : path.slice(0, headBytes))
  const label = head === undefined ? path : `${head}\xff${stats.ino}`
  const isOwn = data !== folder.data
  pending.push({ path, label, head, reach, steps: folder.steps + 1, data, isOwn })
}

/** A btrfs subvolume has a device of its own, but is on the mount of the folder that it is in. */
function isSubvolume<T>(folder: Folder<T>, reach: Bytes): boolean {
  try {
    return areOnOneMount(native(folder.reach), native(reach))
  } catch (cause) {
    if (isErrno(cause, ...VANISHED)) return true // nothing will be found in it
    throw unreadable(folder.path, cause)
  }
}

function look<T>(folder: Folder<T>, reach: Bytes, isExact: boolean): Stats | BigIntStats | undefined {
  try {
    const path = native(reach)
    if (isExact) return lstatSync(path, { throwIfNoEntry: false, bigint: true })
    const stats = lstatSync(path, { throwIfNoEntry: false })
    const isShared = stats && stats.nlink > 1 && !stats.isDirectory()
    return isShared ? lstatSync(path, { throwIfNoEntry: false, bigint: true }) : stats
  } catch (cause) {
    if (isErrno(cause, ...VANISHED)) return undefined
    throw unreadable(folder.path, cause)
  }
}

function unreadable(path: Bytes, cause: unknown): unknown {
  if (!(cause instanceof Error && 'syscall' in cause && 'code' in cause)) return cause
  const remedy = isErrno(cause, 'EACCES', 'EPERM') ? '; this user must be able to read it' : ''
  return new TrainerError(
    'storage',
    `Cannot measure ${escapeBytes(path)}: ${cause.code} at ${cause.syscall}${remedy}`,
    { cause },
  )
}
