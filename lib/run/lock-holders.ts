import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { volumesDirOf } from '../settings/layout.ts'
import { accessRemedy } from '../system/owner.ts'
import { inodeId, outOfInodes, readPlain } from '../system/plain-file.ts'
import { environmentOf, isStopped, listProcesses, readProc } from '../system/processes.ts'
import { isElsewhere, type LockRecord, parseRecord, RECORD_BYTES } from './lock-record.ts'

// Who holds a lock: by what /proc shows and the holder has written down, never by touching it.

/** The holder of the lock, as far as this user can see. */
export type Holder = Omit<LockRecord, 'pid'> & { pid: number | undefined }

/** So long the kernel may take to close the files of a process that is ending. */
const ENDING_MS = 50
const ENDING_LOOK_MS = 5

/** In the environment of what holds the lock beside a training until that is dead: a remainder of a run, not one. */
export const WATCHDOG_MARK = 'RANSOMEYE_WATCHDOG='

/**
 * Is the lock held, and by whom? Told by what /proc shows: the lock is not touched, not even for a moment.
 *
 * @returns the holder, without a pid if it is another user's; undefined if the lock is free, or about to be
 * @throws {TrainerError} `storage` if this user cannot look into the folder
 */
export function findHolder(stateDir: string): Holder | undefined {
  const path = join(stateDir, 'lock')
  try {
    const [folder, file] = [stateDir, path].map(it => lstatSync(it, { throwIfNoEntry: false }))
    if (!folder) return undefined
    const { uid } = file ?? folder
    const locked = file ? [folder, file] : [folder]
    const holders = lockHolders(locked, `${path} (deleted)`).filter(pid => ownerOf(pid) === uid)
    if (!holders.length && !(file && staysListed(file))) return undefined
    if (holders.length && holders.every(isRemainder)) return undefined
    const owner = readOwner(stateDir)
    return { ...owner, pid: namedHolders(owner, holders)[0] }
  } catch (cause) {
    throw new TrainerError('storage', `Cannot look at ${path}: ${messageOf(cause)}${remedyOf(cause, path)}`, {
      cause,
    })
  }
}

/** Is it a watchdog, or a process that is ending? The kernel takes its memory away before it closes its descriptors. */
function isRemainder(pid: number): boolean {
  const environment = environmentOf(pid)
  // A run may have been started with an empty environment, but not without a command.
  const isEnding = environment === '' && readProc(`${pid}/cmdline`) === ''
  return isEnding || environment?.includes(WATCHDOG_MARK) === true
}

/**
 * The run on another machine that has written itself down as the holder. Whether it still holds the lock cannot be seen
 * from here without touching it.
 */
export function findHolderElsewhere(stateDir: string): LockRecord | undefined {
  const owner = readOwner(stateDir)
  // After a reboot the record of a run that was cut off is of this machine all the same.
  return owner && isElsewhere(owner) && owner.host !== hostname() ? owner : undefined
}

/** Is the file among the locks that anybody can see? The device is not compared: on btrfs and overlays stat() has another. */
function isListed({ ino }: { ino: number }): boolean {
  return new RegExp(`^\\d+: FLOCK .*:${ino} `, 'm').test(readProc('locks') ?? '')
}

/** The same, and not only for a moment: a process that is ending has no descriptors any more while the kernel closes its files. */
function staysListed(file: { ino: number }): boolean {
  const never = new Int32Array(new SharedArrayBuffer(4))
  const endMs = performance.now() + ENDING_MS
  while (isListed(file)) {
    if (performance.now() > endMs) return true
    Atomics.wait(never, 0, 0, ENDING_LOOK_MS)
  }
  return false
}

/** Read who has written themselves down as the holder, on NFS too what other machines have written. */
export function readOwner(stateDir: string): LockRecord | undefined {
  try {
    return parseRecord(readPast(join(stateDir, 'lock')) ?? readPlain(stateDir, 'lock', RECORD_BYTES))
  } catch {
    return undefined // not for this user to read, or gone
  }
}

/**
 * Read a file past the cache: of a file that it has open already an NFS client may tell the old content for a minute.
 *
 * @returns undefined where that is not possible, as on disks, whose cache is always right
 */
function readPast(path: string): string | undefined {
  const { O_DIRECT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants
  let fd: number | undefined
  try {
    fd = openSync(path, O_RDONLY | O_DIRECT | O_NOFOLLOW | O_NONBLOCK)
    if (!fstatSync(fd).isFile()) return undefined
    const content = Buffer.alloc(RECORD_BYTES)
    return content.toString('utf8', 0, readSync(fd, content, 0, RECORD_BYTES, 0))
  } catch {
    return undefined
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

/**
 * Processes with a descriptor on which the kernel shows such a lock; merely having the file open is not enough.
 *
 * @param link what /proc shows of a descriptor that counts too
 */
export function lockHolders(locked: Stats[], link?: string): number[] {
  const ids = new Set(locked.map(inodeId))
  const holdsIt = (thread: string, name: string) => {
    const path = `/proc/${thread}/fd/${name}`
    // A descriptor may be closed meanwhile: that says nothing of the others.
    const stats = statSync(path, { throwIfNoEntry: false })
    const counts = stats && (ids.has(inodeId(stats)) || (link && !stats.nlink && readlinkSync(path) === link))
    return counts && readProc(`${thread}/fdinfo/${name}`)?.includes('FLOCK')
  }
  return listProcesses().flatMap(({ pid }) => {
    try {
      return descriptorsOf(pid).some(({ thread, name }) => holdsIt(thread, name)) ? [pid] : []
    } catch {
      return [] // gone, or another user's
    }
  })
}

/** The descriptors of a process. Once its first thread has ended they are those of another. */
function descriptorsOf(pid: number): { thread: string; name: string }[] {
  const listed = (thread: string) => readdirSync(`/proc/${thread}/fd`).map(name => ({ thread, name }))
  const own = listed(`${pid}`)
  if (own.length) return own
  return readdirSync(`/proc/${pid}/task`).flatMap(tid =>
    tid === `${pid}` ? [] : listed(`${pid}/task/${tid}`),
  )
}

/** Is it the run that has written down its pid, which in a container is another number than out here? */
export function isRecorded(pid: number, recorded: number | undefined): boolean {
  const own = /^NSpid:.*\t(\d+)$/m.exec(readProc(`${pid}/status`) ?? '')?.[1]
  return own !== undefined && Number(own) === recorded
}

/** A training started by us, or anything stopped for ever: a starting orchestrator is neither. */
export function isOrphanedTraining(pid: number): boolean {
  return !!environmentOf(pid)?.includes('RANSOMEYE_OUTPUT_DIR=') || isStopped(pid)
}

/** Is it a process of our user? Anybody else who holds what others can open too is no run. */
export function isOurs(pid: number): boolean {
  return ownerOf(pid) === process.geteuid?.()
}

function ownerOf(pid: number): number | undefined {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid
}

/** The run itself, as it has written down; its training holds the lock too. */
export function namedHolders(owner: LockRecord | undefined, holders: number[]): number[] {
  const run = holders.find(pid => isRecorded(pid, owner?.pid))
  if (run !== undefined) return [run]
  return owner !== undefined && !holders.length ? [owner.pid] : holders
}

/** The remedy for whoever cannot open a lock, to be put after the reason; empty if nobody knows. */
export function remedyOf(cause: unknown, path: string): string {
  const gone = outOfInodes(cause, path)
  if (gone) return `; ${gone}`
  if (!isErrno(cause, 'EACCES')) return ''
  const modelsDir = dirname(dirname(path))
  return `; ${accessRemedy(modelsDir, volumesDirOf(modelsDir))}`
}
