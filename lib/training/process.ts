import type { Socket } from 'node:net'
import { constants } from 'node:os'
import type { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { TrainerError } from '../errors.ts'
import { unlessAborted } from '../system/abort.ts'
import { piecesOf } from '../system/pieces.ts'
import {
  bytesWrittenBy,
  findStarved,
  forks,
  isStopped,
  isStuck,
  killAll,
  listProcesses,
  type Process,
  ranMsOf,
  runsOf,
  signalProcess,
  startTimeOf,
  threadsOf,
  trainingProcesses,
} from '../system/processes.ts'
import { nextPidIn, type Sandbox, stopSandbox } from './enter-sandbox.ts'
import { type Launched, launch, type TrainingCommand } from './launch.ts'
import { OutputLines } from './output-lines.ts'
import { SANDBOX_ATTEMPTS } from './sandbox.ts'
import { seccompFilter } from './seccomp.ts'

const hasFilter = seccompFilter({ allowsBursts: true }) !== undefined
/** Time between two looks at whether a training that is ended has gone. */
const END_LOOK_MS = 20
/** Time between two looks at the processes of a training without a sandbox. */
const NOTE_EVERY_MS = 100
/** By then its last output has come, however busy the machine, unless a process that got away holds the pipe. */
const OUTPUT_END_MS = 5000

/** So many processes are named in a message. */
const MOST_NAMED = 8

export type TrainingExit = { exitCode: number | null; signal: NodeJS.Signals | null; seconds: number }

/** Who is told of a training. */
export type Listener = {
  /** Gets its escaped output lines. */
  onLines: (lines: string[]) => void
  /** Gets the present state of a line that it draws over and over. */
  onRedraw: (line: string) => void
  /** Its sandbox has failed, and is made anew. */
  onRetry: (fault: string) => void
  /** Aborted when the run stops waiting for the training to begin. */
  signal: AbortSignal
}

/** By process: how often it has been given a processor; undefined if it has just ended. */
export type Runs = Map<number, number | undefined>

/** The processes and threads of a training that stands still. */
export type Crew = {
  pids: number[]
  threads: number
  /** For so long they have been given a processor. */
  ranMs: number
  /** How many processes and threads the sandbox has had so far, and the machine; and how many numbers the sandbox has for them. */
  made: number
  madeByAll: number
  numbers: number
}

/**
 * May one have ended between two moments? What a process has written is missing from {@link Training.bytesWritten} then, if its
 * parent does not wait for it.
 */
export function hasLostAny(before: Crew, now: Crew): boolean {
  // The numbers may have begun anew.
  if (!(now.madeByAll - before.madeByAll < now.numbers)) return true
  const areThere = before.pids.every(pid => now.pids.includes(pid))
  return !areThere || now.threads - before.threads !== now.made - before.made
}

/** One training process and everything that it starts. */
export class Training {
  readonly pid: number
  readonly exited: Promise<TrainingExit>
  readonly #startedMs = performance.now()
  readonly #command: TrainingCommand
  readonly #output: Readable
  readonly #lifeline: Socket
  readonly #abandon: () => void
  /** All that it has said is taken. */
  #outputEnd: Promise<void> = Promise.resolve()
  readonly #watchdogEnd: Promise<unknown>
  /** It has its grace: what keeps its sandbox stays stopped. */
  #isEnding = false
  /** All of it is dead, or about to be. */
  #isOver = false
  /** Between {@link stop} and {@link resume} nothing else may continue it. */
  #isHeld = false
  #noting: NodeJS.Timeout | undefined
  /** The processes that could not be killed: each is in a system call that no signal ends. */
  #unkillable: number[] = []
  /** Its first process is bwrap's: it takes in those that have ended. */
  #sandbox: Sandbox | undefined
  /** How often the sandbox was entered, each time by one process more. */
  #entries = 0
  #firstCrew: Crew | undefined
  /**
   * Every process ever seen, by its start time: one that leaves the tree and the group stays known. In a sandbox nothing can do
   * that once the program has begun.
   */
  readonly #seen = new Map<number, string | undefined>()

  private constructor(launched: Launched, command: TrainingCommand) {
    const { pid, exited, output, lifeline, abandon } = launched
    this.pid = pid
    this.#command = command
    this.#output = output
    this.#lifeline = lifeline
    this.#abandon = abandon
    this.#watchdogEnd = finished(lifeline).catch(() => {})
    this.exited = exited.then(([code, signal]) => {
      const seconds = (performance.now() - this.#startedMs) / 1000
      return { ...exitOf(code, signal, command.isSandboxed), seconds }
    })
  }

  /**
   * Start a command in a process group of its own with stdin closed. Its program begins when this resolves; a sandbox
   * that fails is made anew a few times.
   *
   * @throws {TrainerError} as {@link launch}; `training-failed` if the program cannot begin; the reason of `signal`
   */
  static async start(command: TrainingCommand, listener: Listener): Promise<Training> {
    for (let attempt = 1; ; attempt++) {
      const launched = await launch(command)
      const training = new Training(launched, command)
      const fault = await training.#begin(launched, listener)
      if (fault === undefined) {
        if (!command.isSandboxed) training.#note()
        return training
      }
      if (!command.isSandboxed || attempt === SANDBOX_ATTEMPTS)
        throw new TrainerError('training-failed', `Cannot start the training: ${fault}`)
      listener.onRetry(fault)
    }
  }

  /** @returns what came instead of the beginning, if that never came; nothing of the training is left then */
  async #begin(
    { isReady, go }: Launched,
    { onLines, onRedraw, signal }: Listener,
  ): Promise<string | undefined> {
    // Earlier output is that of its wrappers.
    const before: string[] = []
    let take: Listener['onLines'] = lines => before.push(...lines)
    const lines = new OutputLines(it => take(it), onRedraw)
    this.#outputEnd = this.#takeOutput(lines)
    let begins = false
    try {
      begins = await unlessAborted(isReady, signal)
    } finally {
      if (!begins) await this.kill()
    }
    if (!begins) return before.at(-1) ?? 'what it is wrapped in ended without a word'
    take = onLines
    if (before.length) onLines(before)
    // A sandbox lives as long as its first process, whatever bwrap says: that one must be known before anything hostile runs.
    this.processes()
    const first = this.#command.isSandboxed && listProcesses().find(({ parent }) => parent === this.pid)?.pid
    if (first) this.#sandbox = { outer: this.pid, first }
    this.#firstCrew = await this.crew()
    go()
    return undefined
  }

  /** A flood of output must keep neither the guard nor a signal waiting. */
  async #takeOutput(lines: OutputLines): Promise<void> {
    for await (const piece of piecesOf(this.#output)) lines.write(piece)
    if (!this.#output.readableAborted) lines.end()
  }

  /**
   * The live processes of the training: its process group and session, whatever was seen before, and the tree below them,
   * from which nothing in a sandbox can leave (but a sandbox that ends while it is being set up leaves the process that
   * it has just made). Without one also whatever carries its environment.
   */
  processes(): number[] {
    const all = listProcesses().filter(({ state }) => state !== 'Z' && state !== 'X')
    const members = new Set<number>()
    const belongs = (it: Process) =>
      members.has(it.parent) ||
      it.group === this.pid ||
      it.session === this.pid ||
      (this.#seen.has(it.pid) && this.#seen.get(it.pid) === startTimeOf(it.pid))
    for (let size = -1; size < members.size; ) {
      size = members.size
      for (const it of all) if (belongs(it)) members.add(it.pid)
    }
    if (!this.#command.isSandboxed) {
      const outputDir = this.#command.env.RANSOMEYE_OUTPUT_DIR!
      for (const pid of trainingProcesses(outputDir, all)) members.add(pid)
    }
    const live = all.map(({ pid }) => pid).filter(pid => members.has(pid))
    if (!this.#sandbox) for (const pid of live) this.#seen.set(pid, startTimeOf(pid))
    return live
  }

  /**
   * Look at the processes again and again: without a sandbox one that leaves the tree and clears its environment is known
   * only if it was seen before. The looks take at most a tenth of the time.
   */
  #note(): void {
    const startedMs = performance.now()
    this.processes()
    const tookMs = performance.now() - startedMs
    this.#noting = setTimeout(() => this.#note(), Math.max(NOTE_EVERY_MS, 10 * tookMs)).unref()
  }

  /**
   * SIGSTOP every process that is not stopped yet. A thread inside a long system call goes on until it returns:
   * call again until all stand still. What has its grace is stopped too: it writes on to save. What takes in the dead goes on:
   * each of thousands would else be met in every list of processes.
   *
   * @returns true once every thread of every process is stopped, or the training is over
   */
  stop(): boolean {
    if (this.#isOver) return true
    // Most of it at once: to list processes takes milliseconds, and it writes on meanwhile.
    this.#stopGroup()
    const running = this.#writers().filter(pid => !isStopped(pid))
    for (const pid of running) signalProcess(pid, 'SIGSTOP')
    return !running.length
  }

  /**
   * SIGSTOP everything in the sandbox at once, by the kernel's own list. A chain of processes, each of which makes the next
   * and ends, is never met in /proc. It takes a program that enters the sandbox, some ten milliseconds.
   *
   * @returns false if something holds that program up
   */
  async stopAtOnce(): Promise<boolean> {
    if (this.#isOver) return true
    this.#stopGroup()
    if (!this.#sandbox) return true
    this.#entries++
    return (await stopSandbox(this.#sandbox)) || this.#isOver
  }

  /**
   * Stop what no list of processes has met, as {@link stopAtOnce} does.
   *
   * @param mayBeHeldUp is it no fault if something holds up the program that is to do that, such as a busy machine?
   * @returns whether one is met now that was not before
   * @throws {TrainerError} `training-failed` if it does not let itself be stopped
   */
  async stopUnseen(mayBeHeldUp = false): Promise<boolean> {
    if (this.#isOver || !this.#command.isSandboxed) return false
    const met = new Set(this.processes())
    if (!(await this.stopAtOnce()) && !mayBeHeldUp) {
      const message =
        'Stopped the training: it cannot be counted, because it holds up the program that is to stop all of it'
      throw new TrainerError('training-failed', message)
    }
    return this.processes().some(pid => !met.has(pid))
  }

  #stopGroup(): void {
    this.#isHeld = true
    signalProcess(-this.pid, 'SIGSTOP')
    if (this.#sandbox) signalProcess(this.#sandbox.first, 'SIGCONT')
  }

  /** How often each of its processes has been given a processor; compare with {@link hasRunSince}. */
  runs(): Runs {
    return new Map(this.#writers().map(pid => [pid, runsOf(pid)]))
  }

  /**
   * Has one of these run since? The kernel itself can wake what is stopped, by a timer whose signal is SIGCONT. A new process
   * would need another that has run to make it. What is over has only died.
   */
  hasRunSince(runs: Runs): boolean {
    return !this.#isOver && [...runs].some(([pid, count]) => runsOf(pid) !== count)
  }

  /** How many bytes its processes have made the kernel write so far; NaN if one of them keeps others out. */
  bytesWritten(): number {
    return this.processes()
      .map(bytesWrittenBy)
      .reduce((sum, bytes) => sum + bytes, 0)
  }

  get sandbox(): Sandbox | undefined {
    return this.#sandbox
  }

  /** Who it was before its program began. */
  get firstCrew(): Crew | undefined {
    return this.#firstCrew
  }

  /** Tell who it is now; compare with {@link hasLostAny}. Undefined if that cannot be told. */
  async crew(): Promise<Crew | undefined> {
    if (!this.#sandbox) return undefined
    const entries = ++this.#entries
    const next = await nextPidIn(this.#sandbox)
    if (!next) return undefined
    const pids = this.processes()
    const sum = (figures: number[]) => figures.reduce((a, b) => a + b, 0)
    return {
      pids,
      threads: sum(pids.map(it => threadsOf(it).length)),
      ranMs: sum(pids.map(ranMsOf)),
      made: next.pid - entries,
      madeByAll: forks(),
      numbers: next.numbers,
    }
  }

  /** Is all of it stopped, or waiting in the kernel where no signal reaches it, as the parent of a vfork() does? */
  isStuck(): boolean {
    return this.#writers().every(isStuck)
  }

  /** Does something of it that does not stop only wait for a processor, which others keep? Takes half a second. */
  async isStarved(): Promise<boolean> {
    return (await findStarved(this.#writers().filter(pid => !isStopped(pid)))).length > 0
  }

  resume(): void {
    this.#isHeld = false
    for (const pid of this.#isEnding ? this.#inside() : this.processes()) signalProcess(pid, 'SIGCONT')
  }

  /**
   * End it whole: SIGTERM to each of its processes, up to `graceMs` until the last of them has ended, SIGKILL. A launcher
   * that dies at once takes no time from its workers; a count meanwhile does, for whoever ends a run waits no longer than the
   * grace. Resolves when nothing of it is left.
   */
  async end(graceMs: number): Promise<void> {
    // It has been killed: there is nobody to have a grace.
    if (this.#isOver) return this.kill()
    this.#isEnding = true
    const endMs = performance.now() + graceMs
    // bwrap would end with the training's first process, and take the others along. Its other process, the first of the
    // sandbox, ends with the last one.
    if (this.#command.isSandboxed) signalProcess(this.pid, 'SIGSTOP')
    for (const pid of this.#inside()) {
      signalProcess(pid, 'SIGTERM')
      if (!this.#isHeld) signalProcess(pid, 'SIGCONT')
    }
    for (let tookMs = 0; performance.now() < endMs; ) {
      await delay(Math.min(Math.max(END_LOOK_MS, 5 * tookMs), Math.max(0, endMs - performance.now())))
      const startedMs = performance.now()
      if (!this.#inside().length) break
      tookMs = performance.now() - startedMs
    }
    if (this.#command.isSandboxed && !this.#inside().length) {
      // It tells how the first process has ended. No count may stop it again.
      this.#isOver = true
      signalProcess(this.pid, 'SIGCONT')
      await Promise.race([this.exited, delay(OUTPUT_END_MS, undefined, { ref: false })])
    }
    await this.kill()
  }

  /** Its processes but for the one that takes in the dead. */
  #writers(): number[] {
    return this.processes().filter(pid => pid !== this.#sandbox?.first)
  }

  /** Its processes but for the one that keeps the sandbox. */
  #inside(): number[] {
    return this.processes().filter(pid => !this.#command.isSandboxed || pid !== this.pid)
  }

  /**
   * SIGKILL whatever is left of it, and take in the last of its output. What cannot be killed is left to the watchdog, which
   * holds the lock until that has ended.
   */
  async kill(): Promise<void> {
    this.#isEnding = true
    this.#isOver = true
    clearTimeout(this.#noting)
    if (!this.isUnkillable) this.#unkillable = await killAll(() => this.processes())
    if (this.isUnkillable) this.#abandon()
    else {
      if (this.#lifeline.writable) this.#lifeline.end('over\n')
      const ends = Promise.all([this.#outputEnd, this.#watchdogEnd]) // the latter holds the lock
      await Promise.race([ends, delay(OUTPUT_END_MS, undefined, { ref: false })])
    }
    // Somebody may still hold the other ends, or have stopped the watchdog: the run must be able to end.
    this.#output.destroy()
    this.#lifeline.destroy()
  }

  /** Does the sandbox's filter hold? All threads of a process have the same descriptors then, and no file gets attributes. */
  get isFiltered(): boolean {
    return this.#command.isSandboxed && hasFilter
  }

  /** Is some of it still there after {@link kill}? It never gives its exit then. */
  get isUnkillable(): boolean {
    return this.#unkillable.length > 0
  }

  /** Name what could not be killed, and what that means. */
  describeUnkillable(): string {
    const named = this.#unkillable.slice(0, MOST_NAMED)
    const more = this.#unkillable.length - named.length
    return `pid ${named.join(', ')}${more ? ` and ${more} more` : ''} cannot be killed: stuck in a system call; the lock is held until that returns, or the machine is restarted`
  }
}

const signalNames = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number, name as NodeJS.Signals]),
)

/** bwrap passes a signal on as exit code 128 + its number, as a shell does. */
function exitOf(
  code: number | null,
  signal: NodeJS.Signals | null,
  isSandboxed: boolean,
): Omit<TrainingExit, 'seconds'> {
  const passedOn = isSandboxed && code !== null && code > 128 ? signalNames.get(code - 128) : undefined
  return passedOn ? { exitCode: null, signal: passedOn } : { exitCode: code, signal }
}
