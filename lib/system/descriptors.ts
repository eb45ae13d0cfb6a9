import {
  closeSync,
  type Dir,
  opendirSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { isErrno } from '../errors.ts'
import type { Bytes } from './bytes.ts'
import { isEnded, threadsOf } from './processes.ts'
import { Slice } from './slice.ts'

/** What the kernel writes behind the path of a file that is gone. */
export const DELETED = ' (deleted)'
/** Read so much of a list of mappings, or of a folder of descriptors, at a time: it takes about a millisecond. */
const PIECE_BYTES = 64 * 1024
const NAMES_AT_A_TIME = 256

/** The other links of a process to files: the program that it runs, mapped or not, and the folders where it is. */
const HELD_BESIDES = ['exe', 'cwd', 'root']

/**
 * Call `visit` with every descriptor and the like: its path below /proc, and where it leads. Nothing is asked of its filesystem,
 * which may be a server's that does not answer.
 */
export async function eachDescriptor(
  pids: number[],
  threadsToLookAt: (pid: number) => string[],
  signal: AbortSignal | undefined,
  visit: (link: string, target: string) => void,
  onDenied = () => {},
): Promise<void> {
  const slice = new Slice()
  for (const thread of pids.flatMap(threadsToLookAt)) {
    for (const link of heldBy(thread, onDenied)) {
      const target = targetOf(link)
      if (target) visit(link, target)
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

/** The threads of a process, as paths below /proc. */
export function everyThread(pid: number): string[] {
  return threadsOf(pid).map(tid => `${pid}/task/${tid}`)
}

/** Once the first thread has ended it has neither descriptors nor mappings, while those of the others live on. */
export function firstLiveThread(pid: number): string[] {
  const live = everyThread(pid).find(thread => !isEnded(thread))
  return live === undefined ? [] : [live]
}

/** A part of a file that a process has mapped. */
export type Mapping = {
  pid: number
  /** Leads to the file, for those who may follow it; see proc_pid_map_files(5). */
  link: string
  inode: number
  device: number
  path: Bytes
  isDeleted: boolean
  /** The file has at least so many. */
  bytes: number
}

/**
 * Call `visit` with every mapping of which the line in /proc/PID/maps is wanted, and with its file's status where this user may have
 * that; see proc_pid_maps(5). To read a list of mappings waits while its process changes them, or runs another program. While that goes on it must be read `aside`, in a thread that
 * keeps nobody else waiting.
 */
export async function eachMapping(
  pids: number[],
  isWanted: (line: string) => boolean,
  { aside, signal }: { aside: boolean; signal: AbortSignal | undefined },
  visit: (mapping: Mapping, stats: () => Promise<Stats | undefined>) => Promise<void>,
): Promise<void> {
  const slice = new Slice()
  for (const pid of pids) {
    const [thread] = firstLiveThread(pid)
    if (!thread) continue
    // No list shows a thread as if it were a process, but it is there.
    const tid = thread.slice(thread.lastIndexOf('/') + 1)
    for await (const lines of linesOf(`/proc/${thread}/maps`, aside)) {
      for (const line of lines) {
        if (!isWanted(line)) continue
        const mapping = parseMapping(pid, tid, line)
        const { link } = mapping
        await visit(mapping, async () => (aside ? stat(link).catch(() => undefined) : statOrNothing(link)))
      }
      await slice.giveWay(signal)
    }
  }
}

function parseMapping(pid: number, tid: string, line: string): Mapping {
  const isDeleted = line.endsWith(DELETED)
  const [range, , offset, device, inode, ...words] = line.split(/ +/)
  const path = words.join(' ')
  const [start, end] = range!.split('-').map(address => Number.parseInt(address, 16))
  const [major, minor] = device!.split(':').map(part => Number.parseInt(part, 16)) // hexadecimal, but in mountinfo
  return {
    pid,
    link: `/proc/${tid}/map_files/${start!.toString(16)}-${end!.toString(16)}`,
    inode: Number(inode),
    device: makedev(major!, minor!),
    path: isDeleted ? path.slice(0, -DELETED.length) : path,
    isDeleted,
    bytes: Number.parseInt(offset!, 16) + end! - start!,
  }
}

/** The number that stat gives for a device; see gnu_dev_makedev in glibc's sys/sysmacros.h. */
function makedev(major: number, minor: number): number {
  return (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)
}

/** The same of `major:minor`. */
export function numberOf(device: string): number {
  const [major, minor] = device.split(':').map(Number)
  return makedev(major!, minor!)
}

/**
 * The paths that UNIX sockets are bound to, by their inodes; see unix(7). They are told as the sockets were given them, without
 * what follows a newline; abstract ones as if they were relative, with a `@` in front.
 */
export async function* boundPaths(sockets: Map<string, number>): AsyncGenerator<string> {
  const [pid] = sockets.values()
  if (pid === undefined) return
  for await (const lines of linesOf(`/proc/${pid}/net/unix`, false)) {
    for (const line of lines) {
      const [, inode, path] = /^\S+: \S+ \S+ \S+ \S+ \S+ +(\d+) (.+)$/.exec(line) ?? []
      if (path !== undefined && sockets.has(inode!)) yield path
    }
  }
}

/** What the kernel tells of a descriptor; see proc_pid_fdinfo(5). Empty for other links, and once it is closed. */
export function infoOf(link: string): string {
  if (!link.includes('/fd/')) return ''
  try {
    return readFileSync(link.replace('/fd/', '/fdinfo/'), 'utf8')
  } catch {
    return ''
  }
}

export function statOrNothing(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined // closed meanwhile, or not ours to look at
  }
}

/** Stands for a path that Linux does not tell, because it has more than 4096 bytes; only the training makes such. */
export const TOO_LONG = 'a path of more than 4096 bytes'

/** Where a link of /proc leads; empty if it is gone, or not ours to look at. */
function targetOf(link: string): string {
  try {
    return readlinkSync(link)
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
async function* linesOf(path: string, aside: boolean): AsyncGenerator<string[]> {
  let file: Awaited<ReturnType<typeof openHere>> | undefined
  try {
    file = aside ? await openAside(path) : openHere(path)
    const piece = Buffer.allocUnsafe(PIECE_BYTES)
    let rest = ''
    for (let bytes = await file.read(piece); bytes; bytes = await file.read(piece)) {
      const lines = (rest + piece.toString('latin1', 0, bytes)).split('\n')
      rest = lines.pop()!
      yield lines
    }
  } catch {
    // Its process has ended.
  } finally {
    await file?.close()
  }
}

function openHere(path: string): { read: (piece: Buffer) => number | Promise<number>; close: () => unknown } {
  const fd = openSync(path, 'r')
  return { read: piece => readSync(fd, piece), close: () => closeSync(fd) }
}

async function openAside(path: string): Promise<ReturnType<typeof openHere>> {
  const file = await open(path, 'r')
  return { read: async piece => (await file.read(piece)).bytesRead, close: () => file.close() }
}
