import { spawnSync } from 'node:child_process'
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  type Stats,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { storageError } from '../system/durable.ts'
import { accessRemedy } from '../system/owner.ts'
import { inodeId, outOfInodes, readPlain } from '../system/plain-file.ts'
import { isStopped, killAll, listProcesses, readProc } from '../system/processes.ts'
import { safePath } from '../system/programs.ts'

const { O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants

/** The held lock: hand `fd` to the training, so that the lock lives as long as either of us. */
export type Lock = { fd: number; release: () => void }

/**
 * Take the kernel's lock on `<stateDir>/lock`. It belongs to the open file, not to a process or a name: after
 * `kill -9` it is free as soon as the last process that inherited the descriptor is gone, and it cannot be stale.
 * The folder is locked too, so that a run stays the only one though somebody removes its lock file.
 *
 * A training whose orchestrator is gone will never be published: it is ended here, and its lock taken over.
 *
 * @throws {TrainerError} `locked`, naming the holder's pid; `storage` if the lock cannot be opened.
 */
export async function takeLock(stateDir: string): Promise<Lock> {
  const path = join(stateDir, 'lock')
  const { fd, folderFd } = open(stateDir, path)
  const release = () => {
    for (const held of [fd, folderFd]) closeSync(held)
  }
  try {
    if (!flockFolder(folderFd)) throw heldBy(path, recordedPid(fd), lockHolders(fstatSync(folderFd)))
    if (!flock(fd)) {
      const owner = recordedPid(fd)
      const holders = lockHolders(fstatSync(fd))
      // Where the folder's lock says nothing, a run that lives is known by what it has written down.
      const isOwned = holders.some(pid => isRecorded(pid, owner))
      if (isOwned || !holders.some(isOrphanedTraining)) throw heldBy(path, owner, holders)
      await killAll(() => lockHolders(fstatSync(fd)).filter(isOrphanedTraining))
      if (!(await retryFlock(fd))) throw heldBy(path, owner, lockHolders(fstatSync(fd)))
    }
    record(fd, path)
    return { fd, release }
  } catch (error) {
    release()
    throw error
  }
}

/**
 * Is the lock held, and by whom? Told by what /proc shows: the lock is not touched, not even for a moment.
 *
 * @returns the holder, without a pid if it is another user's; undefined if the lock is free
 * @throws {TrainerError} `storage` if this user cannot look into the folder
 */
export function findHolder(stateDir: string): { pid: number | undefined } | undefined {
  const path = join(stateDir, 'lock')
  try {
    const locked = [stateDir, path].flatMap(it => lstatSync(it, { throwIfNoEntry: false }) ?? [])
    const holders = lockHolders(...locked)
    if (!holders.length && !locked.some(isListed)) return undefined
    return { pid: namedHolders(readOwner(stateDir), holders)[0] }
  } catch (cause) {
    throw new TrainerError('storage', `Cannot look at ${path}: ${messageOf(cause)}${remedyOf(cause, path)}`, {
      cause,
    })
  }
}

/** What anybody can see of another user's lock. The device is not compared: on btrfs and overlays stat() has another. */
function isListed({ ino }: { ino: number }): boolean {
  return new RegExp(`^\\d+: FLOCK .*:${ino} `, 'm').test(readProc('locks') ?? '')
}

function readOwner(stateDir: string): number | undefined {
  try {
    return pidIn(readPlain(stateDir, 'lock', 64))
  } catch {
    return undefined // not for this user to read, or gone
  }
}

function open(stateDir: string, path: string): { fd: number; folderFd: number } {
  const opened: number[] = []
  const keep = (fd: number) => {
    opened.push(fd)
    return fd
  }
  try {
    const folderFd = keep(openSync(stateDir, O_DIRECTORY))
    const fd = keep(openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o640))
    if (fstatSync(fd).isFile()) return { fd, folderFd }
    throw new TrainerError('storage', `Cannot lock ${path}: not a regular file; remove it`)
  } catch (cause) {
    for (const fd of opened) closeSync(fd)
    if (cause instanceof TrainerError) throw cause
    const reason = isErrno(cause, 'ELOOP') ? 'it is a symbolic link; remove it' : messageOf(cause)
    throw new TrainerError('storage', `Cannot lock ${path}: ${reason}${remedyOf(cause, path)}`, { cause })
  }
}

function remedyOf(cause: unknown, path: string): string {
  const gone = outOfInodes(cause, path)
  if (gone) return `; ${gone}`
  return isErrno(cause, 'EACCES') ? `; ${accessRemedy(dirname(dirname(path)))}` : ''
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

async function retryFlock(fd: number, deadlineMs = 5_000): Promise<boolean> {
  const end = performance.now() + deadlineMs
  while (performance.now() < end) {
    if (flock(fd)) return true
    await delay(20)
  }
  return false
}

/** In place, because a full disk would not give back what is cut off first. */
function record(fd: number, path: string): void {
  const text = `${process.pid}\n`
  try {
    writeSync(fd, text, 0)
    ftruncateSync(fd, text.length)
  } catch (cause) {
    throw storageError(`Cannot lock ${path}`, cause)
  }
}

function recordedPid(fd: number): number | undefined {
  const content = Buffer.alloc(16)
  return pidIn(content.toString('latin1', 0, readSync(fd, content, 0, 16, 0)))
}

function pidIn(text: string): number | undefined {
  const pid = Number.parseInt(text, 10)
  return pid > 0 ? pid : undefined
}

/** Processes with a descriptor on which the kernel shows such a lock; merely having the file open is not enough. */
function lockHolders(...locked: Stats[]): number[] {
  const ids = new Set(locked.map(inodeId))
  const holdsIt = (pid: number, name: string) => {
    // A descriptor may be closed meanwhile: that says nothing of the others.
    const stats = statSync(`/proc/${pid}/fd/${name}`, { throwIfNoEntry: false })
    return stats && ids.has(inodeId(stats)) && readProc(`${pid}/fdinfo/${name}`)?.includes('FLOCK')
  }
  return listProcesses().flatMap(({ pid }) => {
    try {
      return readdirSync(`/proc/${pid}/fd`).some(name => holdsIt(pid, name)) ? [pid] : []
    } catch {
      return [] // gone, or another user's
    }
  })
}

/** Is it the run that has written down its pid, which in a container is another number than out here? */
function isRecorded(pid: number, recorded: number | undefined): boolean {
  const own = /^NSpid:.*\t(\d+)$/m.exec(readProc(`${pid}/status`) ?? '')?.[1]
  return own !== undefined && Number(own) === recorded
}

/** A training started by us, or anything stopped for ever: a starting orchestrator is neither. */
function isOrphanedTraining(pid: number): boolean {
  return !!readProc(`${pid}/environ`)?.includes('RANSOMEYE_OUTPUT_DIR=') || isStopped(pid)
}

function heldBy(path: string, pid: number | undefined, holders: number[]): TrainerError {
  return new TrainerError(
    'locked',
    `Another run holds ${path}: pid ${namedHolders(pid, holders).join(', ') || 'unknown'}; wait for its end or stop it`,
  )
}

/** The run itself, as it has written down; its training holds the lock too. */
function namedHolders(owner: number | undefined, holders: number[]): number[] {
  const run = holders.find(pid => isRecorded(pid, owner))
  if (run !== undefined) return [run]
  return owner !== undefined && !holders.length ? [owner] : holders
}
