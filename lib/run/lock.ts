import { spawnSync } from 'node:child_process'
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { letGo, storageError } from '../system/durable.ts'
import { inodeId } from '../system/plain-file.ts'
import { killAll } from '../system/processes.ts'
import { safePath } from '../system/programs.ts'
import {
  isOrphanedTraining,
  isOurs,
  isRecorded,
  lockHolders,
  namedHolders,
  readOwner,
  remedyOf,
} from './lock-holders.ts'
import { assertSharedLocks } from './lock-mount.ts'
import {
  describeElsewhere,
  formatRecord,
  isElsewhere,
  type LockRecord,
  parseRecord,
  RECORD_BYTES,
} from './lock-record.ts'

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants

/** The held lock: hand `fd` to the training, so that the lock lives as long as either of us. */
export type Lock = { fd: number; release: () => void }

/** Rights on the lock's file beyond its owner's: with them others could open it, and so hold it. */
const OTHERS_RIGHTS = 0o077
/** A watchdog that holds the lock of a run that is gone holds it until the training is dead, which is soon. */
const INHERITED_MS = 20_000
/** A holder that cannot be seen has just let go, or is another user's, or on another machine. */
const UNSEEN_MS = 1_000
/** Between two attempts every process is looked at. */
const MIN_PAUSE_MS = 10
const MAX_PAUSE_MS = 160
/** Another starter may put a new file in the place of an old one meanwhile. */
const MAX_OPENINGS = 10

/**
 * Take the kernel's lock on `<stateDir>/lock`. It belongs to the open file, not to a process or a name: after
 * `kill -9` it is free as soon as the last process that inherited the descriptor is gone, and it cannot be stale.
 *
 * Only the file's owner can open it, so that nobody else can hold it: to lock something takes no more than to open it for
 * reading. The folder is locked too, so that a run stays the only one though somebody removes its lock file; but others
 * may read the folder, so that of its holders only processes of our own user count.
 *
 * A training whose orchestrator is gone will never be published: it is ended here, and its lock taken over.
 *
 * @throws {TrainerError} `locked`, naming the holder; `storage` if the lock cannot be opened; `config` if other machines
 * would not see it; the reason of `signal`, which ends the wait for a training that is ended here
 */
export async function takeLock(stateDir: string, signal?: AbortSignal): Promise<Lock> {
  assertSharedLocks(stateDir)
  const path = join(stateDir, 'lock')
  for (let opening = 1; opening <= MAX_OPENINGS; opening++) {
    const opened = open(stateDir, path)
    // The folder's first: whoever gets the file's wants it next.
    const release = () => {
      for (const held of [opened.folderFd, opened.fd]) letGo(held)
    }
    try {
      if (await acquire(opened, path, signal)) {
        record(opened.fd, path)
        return { fd: opened.fd, release }
      }
    } catch (error) {
      release()
      throw error
    }
    release()
  }
  throw new TrainerError(
    'storage',
    `Cannot lock ${path}: its file is replaced again and again; find what deletes it`,
  )
}

type Opened = { fd: number; folderFd: number; isNew: boolean }

/**
 * @returns false if it has to be opened anew
 * @throws {TrainerError} `locked`
 */
async function acquire(
  { fd, folderFd, isNew }: Opened,
  path: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  if (!flock(fd)) {
    if (isStrangers(fd)) return putAside(path)
    await inherit(fd, path, signal)
  }
  if (!isSameFile(fd, path)) return false
  // On some filesystems every file is open to others.
  if (isOpenToOthers(fd) && !isNew) return putAside(path)
  const isFolderFree = flockFolder(folderFd)
  if (isFolderFree && !isNew) return true
  // Only then there can be a run of which the file's lock says nothing.
  const runs = lockHolders(isFolderFree ? [] : [fstatSync(folderFd)], `${path} (deleted)`).filter(isOurs)
  if (runs.length) throw heldBy(path, undefined, runs)
  return true
}

/** Wait for what is left of a run that is gone, and end its training. */
async function inherit(fd: number, path: string, signal: AbortSignal | undefined): Promise<void> {
  const startedMs = performance.now()
  let seenMs = startedMs
  for (let pauseMs = MIN_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS)) {
    const owner = readRecord(fd)
    const holders = lockHolders([fstatSync(fd)])
    // Where the folder's lock says nothing, a run that lives is known by what it has written down.
    const isOwned = holders.some(pid => isRecorded(pid, owner?.pid))
    const nowMs = performance.now()
    if (holders.length) seenMs = nowMs
    // One that was seen until now has just let go, however long it has held it.
    const isUnseen = nowMs - seenMs > UNSEEN_MS
    if (isOwned || isUnseen || nowMs - startedMs > INHERITED_MS) throw heldBy(path, owner, holders)
    await killAll(() => lockHolders([fstatSync(fd)]).filter(isOrphanedTraining), pauseMs, signal)
    if (flock(fd)) return
    await delay(pauseMs)
    signal?.throwIfAborted()
  }
}

/**
 * Does somebody hold a file whom it does not concern? Earlier versions let others open theirs: such a one is nobody's
 * unless a process of ours holds it.
 */
function isStrangers(fd: number): boolean {
  const isEarlier = readRecord(fd)?.bootId === undefined
  return isEarlier && isOpenToOthers(fd) && !lockHolders([fstatSync(fd)]).some(isOurs)
}

/**
 * Make room for a file that nobody else can open: one that somebody could open once can be held by them for ever.
 *
 * @returns false: what is there now has to be opened
 */
function putAside(path: string): false {
  try {
    unlinkSync(path)
  } catch (cause) {
    if (!isErrno(cause, 'ENOENT')) throw storageError(`Cannot lock ${path}`, cause)
  }
  return false
}

function isOpenToOthers(fd: number): boolean {
  return (fstatSync(fd).mode & OTHERS_RIGHTS) !== 0
}

function isSameFile(fd: number, path: string): boolean {
  const there = lstatSync(path, { throwIfNoEntry: false })
  return there !== undefined && inodeId(there) === inodeId(fstatSync(fd))
}

function open(stateDir: string, path: string): Opened {
  const opened: number[] = []
  const keep = (fd: number) => {
    opened.push(fd)
    return fd
  }
  const flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK
  try {
    const folderFd = keep(openSync(stateDir, O_DIRECTORY))
    let isNew = false
    let fd: number
    try {
      fd = keep(openSync(path, flags))
    } catch (cause) {
      if (!isErrno(cause, 'ENOENT')) throw cause
      isNew = true
      // Another starter may be first.
      fd = keep(openSync(path, flags | O_CREAT | O_EXCL, 0o600))
    }
    if (fstatSync(fd).isFile()) return { fd, folderFd, isNew }
    throw new TrainerError('storage', `Cannot lock ${path}: not a regular file; remove it`)
  } catch (cause) {
    for (const fd of opened) closeSync(fd)
    if (isErrno(cause, 'EEXIST')) return open(stateDir, path)
    if (cause instanceof TrainerError) throw cause
    const reason = isErrno(cause, 'ELOOP') ? 'it is a symbolic link; remove it' : messageOf(cause)
    throw new TrainerError('storage', `Cannot lock ${path}: ${reason}${remedyOf(cause, path)}`, { cause })
  }
}

/** flock(1) locks our own open file description through the descriptor that it inherits (3 ms). */
function flock(fd: number): boolean {
  const { status, error, stderr } = spawnSync('flock', ['-n', '-x', '3'], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    env: { PATH: safePath },
  })
  if (status === 0) return true
  if (status === 1) return false
  const reason = error ? messageOf(error) : stderr.toString().trim()
  throw new TrainerError('storage', `Cannot lock: flock (Debian package util-linux) failed: ${reason}`)
}

/** Some filesystems (NFS) have no locks on folders: there the file's must do. */
function flockFolder(fd: number): boolean {
  try {
    return flock(fd)
  } catch {
    return true
  }
}

/** In place, because a full disk would not give back what is cut off first. */
function record(fd: number, path: string): void {
  const text = formatRecord()
  try {
    writeSync(fd, text, 0)
    ftruncateSync(fd, text.length)
  } catch (cause) {
    throw storageError(`Cannot lock ${path}`, cause)
  }
}

function readRecord(fd: number): LockRecord | undefined {
  const content = Buffer.alloc(RECORD_BYTES)
  return parseRecord(content.toString('utf8', 0, readSync(fd, content, 0, RECORD_BYTES, 0)))
}

function heldBy(path: string, seen: LockRecord | undefined, holders: number[]): TrainerError {
  // On NFS a file that was opened before its holder wrote into it stays empty: one that is opened anew does not.
  const owner = seen ?? readOwner(dirname(path))
  const who =
    owner && !holders.length && isElsewhere(owner)
      ? describeElsewhere(owner)
      : `pid ${namedHolders(owner, holders).join(', ') || 'unknown'}`
  return new TrainerError('locked', `Another run holds ${path}: ${who}; wait for its end or stop it`)
}
