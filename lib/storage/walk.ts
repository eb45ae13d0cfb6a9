import { type BigIntStats, closeSync, constants, lstatSync, openSync, readdirSync, type Stats } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { isErrno, TrainerError } from '../errors.ts'
import { type Bytes, escapeBytes, type Folder, native } from '../system/bytes.ts'
import { type Ordinary, SecondThread } from './walk-thread.ts'

/** What is done at each name of a walk. */
export type Visitor<T> = {
  /** Does `visit` need the nanoseconds and the full inode number? They take longer. */
  isExact: (folder: Folder<T>, name: Bytes) => boolean
  /** Files that need no visit, because all that matters is their charged bytes: those not matched by `except`. */
  ordinary?: Ordinary
  /** Called once a name; one that has several hard links comes exact. For a folder the result becomes its `data`. */
  visit: (folder: Folder<T>, name: Bytes, stats: Stats | BigIntStats) => T
}

/** Opens a folder and nothing else: no link in its place, no FIFO. */
export const FOLDER_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

/** The system's words for a name that is gone, or has become another thing, since it was listed. */
export const VANISHED = ['ENOENT', 'ENOTDIR', 'ELOOP']

const BATCH_NAMES = 128
/** With one more name (255 bytes) below PATH_MAX (4096). */
const MAX_REACH_BYTES = 3800

/**
 * Visit everything below the folder `root`, in slices of about 8 ms with a turn of the event loop between them.
 * Links are never followed; paths may be longer than PATH_MAX. What vanishes meanwhile is passed over, and what is
 * renamed meanwhile may be visited twice or not at all.
 *
 * @returns what `root` itself is
 * @throws {TrainerError} `storage`: a folder cannot be read, or another filesystem is mounted on it; it is named
 */
export async function walk<T>(root: Bytes, data: T, visitor: Visitor<T>): Promise<Stats> {
  const rootStats = statRoot(root)
  // Besides folders: descriptors, each to be closed once the folders above it in this stack are done.
  const pending: (Folder<T> | number)[] = [{ path: root, reach: root, data }]
  const slice = new Slice()
  const second = visitor.ordinary && new SecondThread<T>(visitor.ordinary)
  const visitAll = async (folder: Folder<T>, names: Bytes[]) => {
    for (let start = 0; start < names.length; start += BATCH_NAMES) {
      visitBatch(folder, names, start, rootStats.dev, visitor, pending)
      if (slice.isOver()) await slice.next()
    }
  }
  try {
    while (pending.length || second?.isBusy) {
      for (const { folder, names } of second?.exchange(pending) ?? []) await visitAll(folder, names)
      const next = pending.pop()
      if (next === undefined) await slice.next()
      else if (typeof next === 'number') closeSync(next)
      else await visitAll(next, enter(next, root, pending))
    }
  } finally {
    second?.close()
    for (const left of pending) if (typeof left === 'number') closeSync(left)
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

/** List a folder. One whose path is too long to go on with is reached through a descriptor from here on. */
function enter<T>(folder: Folder<T>, root: Bytes, pending: (Folder<T> | number)[]): Bytes[] {
  try {
    if (folder.reach.length > MAX_REACH_BYTES) {
      const fd = openSync(native(folder.reach), FOLDER_FLAGS)
      pending.push(fd)
      folder.reach = `/proc/self/fd/${fd}`
    }
    return readdirSync(native(folder.reach), 'latin1')
  } catch (cause) {
    if (folder.path !== root && isErrno(cause, ...VANISHED)) return []
    throw unreadable(folder.path, cause)
  }
}

function visitBatch<T>(
  folder: Folder<T>,
  names: Bytes[],
  start: number,
  device: number,
  { isExact, visit }: Visitor<T>,
  pending: (Folder<T> | number)[],
): void {
  const end = Math.min(start + BATCH_NAMES, names.length)
  for (let index = start; index < end; index++) {
    const name = names[index]!
    const reach = `${folder.reach}/${name}`
    const stats = look(folder, reach, isExact(folder, name))
    if (!stats) continue
    const data = visit(folder, name, stats)
    if (!stats.isDirectory()) continue
    const path = `${folder.path}/${name}`
    if (Number(stats.dev) !== device) {
      throw new TrainerError(
        'storage',
        `Cannot measure ${escapeBytes(path)}: another filesystem is mounted on it; unmount it or mount it elsewhere`,
      )
    }
    pending.push({ path, reach, data })
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

/** A share of time for synchronous work: short enough for a live screen, and for signals to be heard. */
export class Slice {
  #endMs = performance.now() + 8

  isOver(): boolean {
    return performance.now() > this.#endMs
  }

  /** Let everything else have its turn, and begin another. */
  async next(): Promise<void> {
    await nextTurn()
    this.#endMs = performance.now() + 8
  }
}
