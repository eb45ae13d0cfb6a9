import {
  closeSync,
  type Dir,
  opendirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs'
import { isErrno } from '../errors.ts'
import { foldersIn } from '../settings/layout.ts'
import { overheadOn } from '../storage/capacity.ts'
import type { Entry } from '../storage/entry.ts'
import { allocatedOf, chargeOf } from '../storage/measure.ts'
import { isWithin } from '../system/bytes.ts'
import { parseMounts } from '../system/mounts.ts'
import { inodeId } from '../system/plain-file.ts'
import { readProc } from '../system/processes.ts'
import { Slice } from '../system/slice.ts'
import { temporaryFolder } from './sandbox.ts'

/** Files of the job's folder that no walk sees because they are deleted, but that processes still hold. */
export type HeldFiles = {
  /** Charged bytes, each file once; at least so many. */
  deletedBytes: number
  /** The same without what is charged of sparse files beyond their blocks. */
  allocatedBytes: number
  /** How many they are. */
  deletedInodes: number
  /** Deleted files that are mapped and not open, where this user may not look at them: they may have more. */
  unseen: Set<string>
  /** The largest of the files that are deleted and open. */
  largest: HeldFile[]
  /** How many nobody may look into: open files on their way from process to process, and processes that keep others out. */
  outOfSight: number
}

/** A deleted file, its path as the process that holds it saw that, and one such process. */
export type HeldFile = { path: string; bytes: number; pid: number }

export type HeldOptions = {
  /** The job's folder. */
  dir: string
  /** Files made since then are its training's, by whatever path it has reached them; milliseconds since 1970. */
  sinceMs: number
  /** Look at the descriptors of each thread, which may have its own, and into sockets. */
  isThorough: boolean
  /** Ends the look; its reason is thrown. */
  signal?: AbortSignal
}

const DELETED = ' (deleted)'
/** Read so much of a list of mappings, or of a folder of descriptors, at a time: it takes about a millisecond. */
const PIECE_BYTES = 64 * 1024
const NAMES_AT_A_TIME = 256
/** So many files are worth to be named. */
const LARGEST = 3

export function nothingHeld(): HeldFiles {
  return {
    deletedBytes: 0,
    allocatedBytes: 0,
    deletedInodes: 0,
    largest: [],
    unseen: new Set(),
    outOfSight: 0,
  }
}

/** Look at the deleted files that these processes have open or mapped; other users' processes are not readable. */
export async function heldFiles(pids: number[], options: HeldOptions): Promise<HeldFiles> {
  const { isThorough, signal } = options
  const isCharged = chargeRule(options)
  const overhead = overheadOn(options.dir)
  /** By device and inode. */
  const bytesOf = new Map<string, number>()
  const inodes = new Set<number>()
  const sockets = new Set<number>()
  const held = nothingHeld()
  const add = (stats: Stats, pid: number, pathOf: () => string) => {
    // A folder that has held many names keeps its size when they are gone.
    if (stats.nlink > 0) return
    const id = inodeId(stats)
    if (bytesOf.has(id)) return
    const path = pathOf()
    if (!isCharged(stats.dev, path, stats.birthtimeMs)) return
    const bytes = chargeOf(stats, overhead)
    bytesOf.set(id, bytes)
    held.allocatedBytes += allocatedOf(stats, overhead)
    inodes.add(stats.ino)
    note({ path, bytes, pid })
  }
  const note = (file: HeldFile) => {
    const { largest } = held
    if (largest.length === LARGEST && file.bytes <= largest.at(-1)!.bytes) return
    largest.push(file)
    largest.sort((a, b) => b.bytes - a.bytes)
    largest.length = Math.min(largest.length, LARGEST)
  }
  const visit = (stats: Stats, path: string) => {
    add(stats, Number(path.split('/', 3)[2]), () => pathBehind(path))
    if (!isThorough || !stats.isSocket() || sockets.has(stats.ino)) return
    sockets.add(stats.ino)
    held.outOfSight += Number(/^scm_fds:\s*(\d+)/m.exec(readText(path.replace('/fd/', '/fdinfo/')))?.[1] ?? 0)
  }
  // Such a process has called prctl(PR_SET_DUMPABLE, 0), or runs a program that it may not read.
  await eachDescriptor(pids, isThorough, signal, visit, () => held.outOfSight++)
  await eachDeletedMapping(pids, signal, ({ thread, range, inode, device, path, bytes }) => {
    // On btrfs and overlays stat() gives another device than the list of mappings.
    if (inodes.has(inode)) return
    const pid = Number.parseInt(thread, 10)
    const stats = statOrNothing(`/proc/${pid}/map_files/${range}`)
    if (stats) return add(stats, pid, () => path)
    if (!isCharged(device, path, 0)) return
    const id = `mapped ${inode}`
    held.unseen.add(id)
    bytesOf.set(id, Math.max(bytes, bytesOf.get(id) ?? 0))
  })
  for (const bytes of bytesOf.values()) held.deletedBytes += bytes
  held.deletedInodes = bytesOf.size
  return held
}

/** Find the entries of the job's folder that processes have open, or something in them. */
export async function openEntries(entries: Entry[], pids: number[], dir: string): Promise<Set<Entry>> {
  const files = new Map(entries.map(entry => [inodeId(entry), entry]))
  const folders = new Map(entries.flatMap(it => (it.isFolder ? [[it.path.toString(), it] as const] : [])))
  const open = new Set<Entry>()
  if (!entries.length) return open
  const { tmpDir } = foldersIn(dir)
  await eachDescriptor(pids, false, undefined, (stats, path) => {
    if (!stats.isFile()) return
    const entry = files.get(inodeId(stats))
    if (entry) open.add(entry)
    if (!folders.size) return
    const seen = pathBehind(path)
    for (const file of [seen, seen.replace(temporaryFolder, tmpDir)]) {
      for (let end = file.indexOf('/', 1); end > 0; end = file.indexOf('/', end + 1)) {
        const folder = folders.get(file.slice(0, end))
        if (folder) open.add(folder)
      }
    }
  })
  return open
}

/** The other links of a process to files: the program that it runs, mapped or not, and the folders where it is. */
const HELD_BESIDES = ['exe', 'cwd', 'root']

/** Call `visit` with every descriptor and the like: what it is open on, and its path below /proc. */
async function eachDescriptor(
  pids: number[],
  isThorough: boolean,
  signal: AbortSignal | undefined,
  visit: (stats: Stats, path: string) => void,
  onDenied = () => {},
): Promise<void> {
  const slice = new Slice()
  for (const thread of pids.flatMap(pid => threadsOf(pid, isThorough))) {
    for (const path of heldBy(thread, onDenied)) {
      const stats = statOrNothing(path)
      if (stats) visit(stats, path)
      if (!slice.isOver()) continue
      await slice.next()
      signal?.throwIfAborted()
    }
  }
}

function* heldBy(thread: string, onDenied: () => void): Generator<string> {
  // A process that has ended keeps others out too, and holds nothing.
  const denied = () => void (isEnded(thread) || onDenied())
  for (const name of namesIn(`/proc/${thread}/fd`, denied)) yield `/proc/${thread}/fd/${name}`
  for (const name of HELD_BESIDES) yield `/proc/${thread}/${name}`
}

/**
 * The threads of a process whose descriptors are to be looked at, as paths below /proc: the first, or each. Once the
 * first has ended it has none, while those of the others live on.
 */
function threadsOf(pid: number, isThorough: boolean): string[] {
  const threads = list(`/proc/${pid}/task`).map(tid => `${pid}/task/${tid}`)
  return isThorough || isEnded(threads[0]) ? threads : threads.slice(0, 1)
}

function isEnded(thread: string | undefined): boolean {
  const stat = thread && readProc(`${thread}/stat`)
  return !stat || 'ZX'.includes(stat.charAt(stat.lastIndexOf(')') + 2))
}

type Mapping = {
  /** Whose it is, as a path below /proc. */
  thread: string
  /** Its name in map_files. */
  range: string
  inode: number
  device: number
  path: string
  /** The file has at least so many. */
  bytes: number
}

async function eachDeletedMapping(
  pids: number[],
  signal: AbortSignal | undefined,
  visit: (mapping: Mapping) => void,
): Promise<void> {
  const slice = new Slice()
  for (const pid of pids) {
    // All of its threads have the same; one that has ended has none.
    const thread = threadsOf(pid, true).find(it => !isEnded(it))
    if (!thread) continue
    for (const lines of linesOf(`/proc/${thread}/maps`)) {
      for (const line of lines) if (line.endsWith(DELETED)) visit(parseMapping(thread, line))
      if (!slice.isOver()) continue
      await slice.next()
      signal?.throwIfAborted()
    }
  }
}

function parseMapping(thread: string, line: string): Mapping {
  const [range, , offset, device, inode, ...path] = line.split(/ +/)
  const [start, end] = range!.split('-').map(address => Number.parseInt(address, 16))
  const [major, minor] = device!.split(':').map(part => Number.parseInt(part, 16))
  return {
    thread,
    range: `${start!.toString(16)}-${end!.toString(16)}`,
    inode: Number(inode),
    device: makedev(major!, minor!),
    path: path.join(' ').slice(0, -DELETED.length),
    bytes: Number.parseInt(offset!, 16) + end! - start!,
  }
}

/** The number that stat gives for a device; see gnu_dev_makedev in glibc's sys/sysmacros.h. */
function makedev(major: number, minor: number): number {
  return (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)
}

/**
 * Tells whether a deleted file was one of the job's: on its filesystem, and in its folder or made since its training
 * began. In a sandbox the folders for temporary files are folders of the job.
 */
function chargeRule({ dir, sinceMs }: HeldOptions): (dev: number, path: string, madeMs: number) => boolean {
  const devices = devicesOf(dir)
  const isInside = (path: string) => isWithin(path, dir) || temporaryFolder.test(path)
  return (dev, path, madeMs) => devices.has(dev) && (path === TOO_LONG || isInside(path) || madeMs >= sinceMs)
}

/**
 * The numbers by which a folder's filesystem goes: on btrfs and overlays stat() and the list of mappings differ. An overlay
 * gives the files of each of its layers a number that stands nowhere, so there it is any that no other mount has.
 */
function devicesOf(dir: string): Pick<Set<number>, 'has'> {
  const devices = new Set([statSync(dir).dev])
  const mounts = parseMounts(readProc('self/mountinfo') ?? '').map(({ device, ...mount }) => {
    const [major, minor] = device.split(':').map(Number)
    return { ...mount, device: makedev(major!, minor!) }
  })
  // The last of the deepest covers the others.
  const [mount] = mounts
    .filter(({ point }) => isWithin(dir, point === '/' ? '' : point))
    .reverse()
    .sort((a, b) => b.point.length - a.point.length)
  if (!mount) return devices
  devices.add(mount.device)
  if (mount.type !== 'overlay') return devices
  // Some kernels give a mapped file the number of the filesystem that the overlay writes to.
  const upper = statOrNothing(
    mount.options.find(it => it.startsWith('upperdir='))?.slice('upperdir='.length) ?? '',
  )
  if (upper) devices.add(upper.dev)
  const others = new Set(mounts.map(({ device }) => device).filter(device => !devices.has(device)))
  return { has: device => !others.has(device) }
}

function statOrNothing(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined // closed meanwhile, or not ours to look at
  }
}

/** Stands for a path that Linux does not tell, because it has more than 4096 bytes; only the training makes such. */
const TOO_LONG = 'a path of more than 4096 bytes'

function pathBehind(link: string): string {
  try {
    const path = readlinkSync(link)
    return path.endsWith(DELETED) ? path.slice(0, -DELETED.length) : path
  } catch (error) {
    return isErrno(error, 'ENAMETOOLONG') ? TOO_LONG : ''
  }
}

/** The names in a folder of /proc, however many: nothing if it is gone, or not ours to look at. */
function* namesIn(path: string, onDenied: () => void): Generator<string> {
  let dir: Dir | undefined
  try {
    dir = opendirSync(path, { bufferSize: NAMES_AT_A_TIME })
    for (let entry = dir.readSync(); entry; entry = dir.readSync()) yield entry.name
  } catch (error) {
    if (isErrno(error, 'EACCES', 'EPERM')) onDenied() // else its process has ended
  } finally {
    dir?.closeSync()
  }
}

/** The lines of a file of /proc, some at a time: nothing more once it is gone. */
function* linesOf(path: string): Generator<string[]> {
  let fd: number | undefined
  try {
    fd = openSync(path, 'r')
    const piece = Buffer.allocUnsafe(PIECE_BYTES)
    let rest = ''
    for (let bytes = readSync(fd, piece); bytes; bytes = readSync(fd, piece)) {
      const lines = (rest + piece.toString('latin1', 0, bytes)).split('\n')
      rest = lines.pop()!
      yield lines
    }
  } catch {
    // Its process has ended.
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function list(dir: string): string[] {
  try {
    return readdirSync(dir)
  } catch {
    return []
  }
}
