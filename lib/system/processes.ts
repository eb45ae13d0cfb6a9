import { readdirSync, readFileSync, statSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { isErrno } from '../errors.ts'
import { inodeId } from './plain-file.ts'

/** A process as `/proc/PID/status` shows it; see proc_pid_status(5). */
export type Process = {
  pid: number
  state: string
  parent: number
  group: number
  session: number
}

/** In the order of the file; of numbers by namespace the first is our own. A newline in a name is escaped. */
const STATUS = /^State:\t(.).*?\nPPid:\t(\d+).*?\nNSpgid:\t(\d+).*?\nNSsid:\t(\d+).*?\nThreads:\t(\d+)/ms

/**
 * List every process that this user can see. Processes that end meanwhile are left out. `stat` would tell the same, but to read
 * it waits for as long as its process is just running another program, which with a low priority can take seconds.
 */
export function listProcesses(): Process[] {
  return readdirSync('/proc').flatMap(name => (/^\d+$/.test(name) ? readProcess(Number(name)) : []))
}

function readProcess(pid: number): Process | [] {
  const [, state, parent, group, session, threads] = STATUS.exec(readProc(`${pid}/status`) ?? '') ?? []
  if (state === undefined) return []
  return {
    pid,
    state: state === 'Z' && Number(threads) > 1 ? liveThreadState(pid) : state,
    parent: Number(parent),
    group: Number(group),
    session: Number(session),
  }
}

/** Tell the state of a process or thread, a path below /proc; undefined if it is gone. See proc_pid_status(5). */
export function stateOf(path: string): string | undefined {
  return /^State:\t(.)/m.exec(readProc(`${path}/status`) ?? '')?.[1]
}

/** Has a process or thread, a path below /proc, ended, though its parent has not waited for it yet? */
export function isEnded(path: string): boolean {
  return 'ZX'.includes(stateOf(path) ?? 'X')
}

/**
 * Tell when a process was started, in ticks of the machine's clock: of two with the same number, which one it is. Undefined if
 * it is gone. Waits while the process is just running another program. See proc_pid_stat(5).
 */
export function startTimeOf(pid: number): string | undefined {
  const stat = readProc(`${pid}/stat`)
  // The name, in parentheses, may itself hold spaces and parentheses.
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
}

/**
 * Return the state of a thread that lives: a process whose first thread has ended looks dead, but others may run on.
 */
function liveThreadState(pid: number): string {
  return threadStates(pid).find(state => state !== 'Z' && state !== 'X') ?? 'Z'
}

/** Return the state of each thread. Threads that end meanwhile are left out. */
function threadStates(pid: number): string[] {
  return threadsOf(pid).flatMap(tid => stateOf(`${pid}/task/${tid}`) ?? [])
}

/** List the threads of a process, by number; none if it is gone. */
export function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
}

/** Read a file below /proc; undefined if the process is gone or not ours to read. */
export function readProc(path: string): string | undefined {
  try {
    // Ask for UTF-8, which Node reads in one call. Otherwise it sets 64 KiB aside for every file that states no size.
    return readFileSync(`/proc/${path}`, 'utf8')
  } catch {
    return undefined
  }
}

/** How many processes and threads the machine has made since it was started; see proc_stat(5). */
export function forks(): number {
  return Number(/^processes (\d+)$/m.exec(readProc('stat') ?? '')?.[1] ?? Number.POSITIVE_INFINITY)
}

/** Read the environment of a process, NUL between its variables. Once its first thread has ended another one tells it. */
export function environmentOf(pid: number): string | undefined {
  const text = readProc(`${pid}/environ`)
  if (text) return text
  const threads = threadsOf(pid).filter(tid => tid !== `${pid}`)
  return threads.map(tid => readProc(`${pid}/task/${tid}/environ`)).find(Boolean) ?? text
}

/**
 * Find the processes among `all` whose environment says that they belong to a training with this output folder. Leaves
 * out this process, its ancestors, and the processes of a container in which that path leads to another folder.
 */
export function trainingProcesses(outputDir: string, all = listProcesses()): number[] {
  const wanted = `\0RANSOMEYE_OUTPUT_DIR=${outputDir}\0`
  const folder = folderSeenBy('self', outputDir)
  const ours = new Set<number>()
  for (let pid: number | undefined = process.pid; pid && !ours.has(pid); ) {
    ours.add(pid)
    pid = all.find(it => it.pid === pid)?.parent
  }
  return all
    .filter(({ pid, state }) => !ours.has(pid) && state !== 'Z')
    .filter(({ pid }) => `\0${environmentOf(pid)}`.includes(wanted))
    .filter(({ pid }) => !folder || folderSeenBy(pid, outputDir) === folder)
    .map(({ pid }) => pid)
}

function folderSeenBy(pid: number | 'self', path: string): string | undefined {
  try {
    return inodeId(statSync(`/proc/${pid}/root${path}`))
  } catch {
    return undefined
  }
}

/** Is every thread of the process stopped by a signal, or gone? A thread stops only at the end of its system call. */
export function isStopped(pid: number): boolean {
  return threadStates(pid).every(state => 'TtZX'.includes(state))
}

/** What stands in schedstat, by place; see sched-stats in the kernel's documentation. */
const RAN_NS = 0
const RUNS = 2

/** Add up what the threads of a process have in schedstat; undefined if it is gone, 0 where the kernel does not count. */
function scheduled(pid: number, place: number): number | undefined {
  const figures = threadsOf(pid).flatMap(
    tid => readProc(`${pid}/task/${tid}/schedstat`)?.split(' ')[place] ?? [],
  )
  return figures.length ? figures.reduce((sum, figure) => sum + Number(figure), 0) : undefined
}

/**
 * Tell how often the threads of a process have been given a processor: while it stands still that does not change, whatever
 * wakes it for a moment. Undefined if it is gone; 0 where the kernel does not count.
 */
export function runsOf(pid: number): number | undefined {
  return scheduled(pid, RUNS)
}

/** For how long the threads of a process have been given a processor; 0 if it is gone, and where the kernel does not count. */
export function ranMsOf(pid: number): number {
  return ranNsOf(pid) / 1e6
}

function ranNsOf(pid: number): number {
  return scheduled(pid, RAN_NS) ?? 0
}

/** Look so often, and so long in all, at what a process does. */
const LOOKS = 5
const LOOKS_MS = 500

/** What a process did while it was looked at. */
type Doings = { ranNs: number; isAlwaysReady: boolean }

async function watchProcesses(pids: number[]): Promise<Map<number, Doings>> {
  const before = new Map(pids.map(pid => [pid, ranNsOf(pid)]))
  const ready = new Set(pids)
  for (let look = 0; look < LOOKS; look++) {
    await delay(LOOKS_MS / LOOKS)
    for (const pid of ready) if (!threadStates(pid).includes('R')) ready.delete(pid)
  }
  return new Map(
    pids.map(pid => [pid, { ranNs: ranNsOf(pid) - before.get(pid)!, isAlwaysReady: ready.has(pid) }]),
  )
}

/** It would run, but for others that keep the processors. */
function isStarved({ ranNs, isAlwaysReady }: Doings): boolean {
  return isAlwaysReady && ranNs < (LOOKS_MS * 1e6) / 2
}

/** What has run for so long since it was killed, and is not on its way out, is in a call that hears no signal. */
const DEAF_NS = 250e6

/** Find those of some processes that wait for a processor, which others keep; takes half a second. */
export async function findStarved(pids: number[]): Promise<number[]> {
  return [...(await watchProcesses(pids))].flatMap(([pid, doings]) => (isStarved(doings) ? [pid] : []))
}

/**
 * Are these on their way out, as far as others let them run? To give much memory back takes long, and one waits for another.
 *
 * @param ranNs how long each had run when it had been killed
 */
async function areEnding(pids: number[], ranNs: Map<number, number>): Promise<boolean> {
  const doings = [...(await watchProcesses(pids))]
  const isDeaf = (pid: number) => ranNsOf(pid) - (ranNs.get(pid) ?? 0) > DEAF_NS
  const moves = ([pid, it]: [number, Doings]) =>
    isExiting(pid) ? it.ranNs > 0 || isStarved(it) : isStarved(it) && !isDeaf(pid)
  return doings.some(moves) && doings.every(it => isExiting(it[0]) || moves(it))
}

/**
 * Tell how many bytes a process has made the kernel write to files so far, also by a call that still goes on; see
 * proc_pid_io(5). 0 if it is gone; NaN if it keeps others out.
 */
export function bytesWrittenBy(pid: number): number {
  const [, bytes] = /^write_bytes: (\d+)/m.exec(readProc(`${pid}/io`) ?? '') ?? []
  if (bytes !== undefined) return Number(bytes)
  return stateOf(`${pid}`) === undefined ? 0 : Number.NaN
}

/** Does every thread of the process that is not stopped wait in the kernel for something, where no signal reaches it? */
export function isStuck(pid: number): boolean {
  return threadStates(pid).every(state => 'TtZXD'.includes(state))
}

/**
 * Is the process gone, or on its way out? It has given back its memory then; the first of a sandbox waits there for all others,
 * and looks asleep.
 */
export function isExiting(pid: number): boolean {
  return !readProc(`${pid}/status`)?.includes('\nVmSize:')
}

/** Signal one process. A process that is already gone is no error. */
export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!isErrno(error, 'ESRCH', 'EPERM')) throw error
  }
}

/** Most is dead by then. */
const AT_ONCE_MS = 1000
/** So long all that is on its way out is left alone before it is looked at. */
const ENDING_MS = 5000
/** No ending is waited for longer than this, whatever it does. */
const MOST_ENDING_MS = 120_000

/**
 * Send SIGKILL to every process that `find` returns until it returns none: processes forked meanwhile are caught too.
 *
 * @returns the processes that are still there at the deadline, in an uninterruptible system call; later if all that are left
 * are on their way out, or wait for a processor, unless `signal` is aborted meanwhile
 */
export async function killAll(
  find: () => number[],
  deadlineMs = 10_000,
  signal?: AbortSignal,
): Promise<number[]> {
  const startedMs = performance.now()
  const ranNs = new Map<number, number>()
  for (;;) {
    const left = find()
    if (!left.length) return left
    for (const pid of left) signalProcess(pid, 'SIGKILL')
    await delay(5)
    const tookMs = performance.now() - startedMs
    if (tookMs > AT_ONCE_MS) for (const pid of left) if (!ranNs.has(pid)) ranNs.set(pid, ranNsOf(pid))
    // One on its way out does nothing more, and hears no signal: it moves on, or is stuck for good.
    const isEnding = tookMs > ENDING_MS && left.every(isExiting)
    if (tookMs < deadlineMs && !isEnding) continue
    if (signal?.aborted || tookMs > MOST_ENDING_MS || !(await areEnding(left, ranNs))) return find()
  }
}
