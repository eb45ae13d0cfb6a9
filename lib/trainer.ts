import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import type { Readable, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { safePath } from './environment.ts'
import { isErrno, TrainerError } from './errors.ts'
import {
  isStopped,
  killAll,
  listProcesses,
  type Process,
  processesWithVariable,
  signalProcess,
} from './processes.ts'
import { OutputLines } from './trainer/output.ts'

/** Time between SIGTERM and SIGKILL. */
const GRACE_MS = 10_000

/**
 * Runs beside the training, in a session and with an environment of its own: once we are gone without a word it kills
 * the training's process group, which takes a whole sandbox along. The kernel's parent-death signal alone would leave
 * what has not asked for it yet, such as a sandbox that is being set up.
 */
const watchdog = 'read -ru 5 || kill -KILL -- "-$0"'

export type TrainingCommand = {
  /** The whole argument vector, limits and sandbox included; its program is looked up on our PATH, not on that of `env`. */
  argv: string[]
  cwd: string
  env: Record<string, string>
  /**
   * The run's lock, inherited so that it is held for as long as the training lives: in a sandbox by its first process
   * alone, else by every process.
   */
  lockFd: number
  isSandboxed: boolean
}

export type TrainingExit = { exitCode: number | null; signal: NodeJS.Signals | null; seconds: number }

/** One training process and everything that it starts. */
export class Training {
  readonly pid: number
  readonly exited: Promise<TrainingExit>
  readonly #command: TrainingCommand
  readonly #output: Readable
  readonly #lifeline: Writable
  readonly #outputEnd: Promise<void>
  #ending = false
  /** Every process ever seen, by its start time: one that leaves the tree and the group is still known. */
  readonly #seen = new Map<number, string>()

  private constructor(child: ChildProcess, pid: number, command: TrainingCommand) {
    const startedMs = performance.now()
    this.pid = pid
    this.#command = command
    this.#output = child.stdio[4] as Readable
    this.#lifeline = lifelineOf(child)
    this.#outputEnd = finished(this.#output, { writable: false }).catch(() => {})
    for (const { startTime } of listProcesses().filter(it => it.pid === pid)) this.#seen.set(pid, startTime)
    this.exited = new Promise(resolve => {
      child.once('exit', (code, signal) => {
        const seconds = (performance.now() - startedMs) / 1000
        resolve({ ...exitOf(code, signal, command.isSandboxed), seconds })
      })
    })
  }

  /**
   * Start a command in a process group of its own with stdin closed; `onLines` gets its escaped output lines.
   *
   * @throws {TrainerError} `training-failed` if no process could be made; `config` if its command is too long for one
   */
  static async start(command: TrainingCommand, onLines: (lines: string[]) => void): Promise<Training> {
    const { $, quote } = await import('zx/core')
    const { argv, cwd, env, lockFd } = command
    // zx keeps all that it reads from stdout in memory: the training's output comes on a descriptor of our own. Node's
    // pipes are sockets, which a training could not open by the name /dev/stdout: between is a real pipe and `cat`, in a
    // session of its own, so that it outlives the training and is not stopped with it. Nor is stdin one: bash would take
    // itself for a remote shell and run ~/.bashrc.
    const stdio = ['ignore', 'ignore', 'ignore', lockFd, 'pipe', 'pipe'] as const
    const ours = { ...env, PATH: safePath }
    const options = { cwd, env: ours, detached: true, nothrow: true, quiet: true, stdio: [...stdio] }
    // Whatever ZX_* variables say, and without a PATH, on which zx looks for its shell.
    const bash = { shell: '/bin/bash', prefix: '', postfix: '', quote }
    const started = $({ ...options, ...bash })`
      exec 2>&4 > >(exec env --ignore-environment setsid --fork cat >&4 3>&- 5>&-) && wait $! &&
      env --ignore-environment setsid --fork ${bash.shell} -c ${watchdog} $$ >&- 2>&- 3>&- 4>&- &&
      exec ${argv} 2>&1 4>&- 5>&-`
    const { child } = started
    if (!child?.pid) {
      const { cause, message } = await started
      const isTooLong = isErrno(cause, 'E2BIG')
      const remedy = isTooLong
        ? '; shorten its command or env: Linux takes 128 KiB, more belongs in a file'
        : ''
      throw new TrainerError(
        isTooLong ? 'config' : 'training-failed',
        `Cannot start the training in ${cwd}: ${message.split('\n')[0]}${remedy}`,
        { cause },
      )
    }
    const lines = new OutputLines(onLines)
    lifelineOf(child).on('error', () => {}) // of a watchdog that somebody has killed
    const output = child.stdio[4] as Readable
    output.on('data', chunk => lines.write(chunk)).on('end', () => lines.end())
    return new Training(child, child.pid, command)
  }

  /**
   * The live processes of the training. In a sandbox that is the process tree below it, from which nothing can
   * leave; without one also its process group and session, whatever carries its environment, and whatever
   * was seen before.
   */
  processes(): number[] {
    const all = listProcesses().filter(({ state }) => state !== 'Z' && state !== 'X')
    const members = new Set<number>()
    const belongs = (it: Process) =>
      members.has(it.parent) ||
      this.#seen.get(it.pid) === it.startTime ||
      (!this.#command.isSandboxed && (it.group === this.pid || it.session === this.pid))
    for (let size = -1; size < members.size; ) {
      size = members.size
      for (const it of all) if (belongs(it)) members.add(it.pid)
    }
    if (!this.#command.isSandboxed) {
      const outputDir = this.#command.env.RANSOMEYE_OUTPUT_DIR!
      for (const pid of processesWithVariable('RANSOMEYE_OUTPUT_DIR', outputDir)) members.add(pid)
    }
    const live = all.filter(({ pid }) => members.has(pid))
    for (const { pid, startTime } of live) this.#seen.set(pid, startTime)
    return live.map(({ pid }) => pid)
  }

  /**
   * SIGSTOP every process that is not stopped yet. A thread inside a long system call goes on until it returns:
   * call again until all stand still.
   *
   * @returns true once every thread of every process is stopped, or the training is being ended
   */
  stop(): boolean {
    if (this.#ending) return true
    const running = this.processes().filter(pid => !isStopped(pid))
    for (const pid of running) signalProcess(pid, 'SIGSTOP')
    return !running.length
  }

  resume(): void {
    for (const pid of this.processes()) signalProcess(pid, 'SIGCONT')
  }

  /** End it whole: SIGTERM, ten seconds of grace, SIGKILL. Resolves when nothing of it is left. */
  async end(graceMs = GRACE_MS): Promise<void> {
    this.#ending = true
    // The sandbox itself must outlive the grace: bwrap would take its processes along at once.
    const addressed = this.processes().filter(pid => !this.#command.isSandboxed || pid !== this.pid)
    for (const pid of addressed) {
      signalProcess(pid, 'SIGTERM')
      signalProcess(pid, 'SIGCONT')
    }
    await Promise.race([this.exited, delay(graceMs, undefined, { ref: false })])
    await this.kill()
  }

  /** SIGKILL whatever is left of it, and take in the last of its output. */
  async kill(): Promise<void> {
    this.#ending = true
    const left = await killAll(() => this.processes())
    if (left.length) {
      throw new TrainerError('training-failed', `Cannot kill pid ${left.join(', ')}: stuck in a system call`)
    }
    if (this.#lifeline.writable) this.#lifeline.end('over\n')
    await Promise.race([this.#outputEnd, delay(1000, undefined, { ref: false })])
    this.#output.destroy() // whoever may still hold its other end: the run must be able to end
  }
}

/** Descriptor 5; Node's types end at 4. */
function lifelineOf(child: ChildProcess): Writable {
  return (child.stdio as unknown as Writable[])[5]!
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
