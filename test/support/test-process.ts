import { type ChildProcess, fork } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { testLimitMs } from './places.ts'

/** How a test file went; a fault is what is wrong with the file rather than with what it tests. */
export type Tally = {
  passed: number
  failed: number
  faults: string[]
  skips: string[]
  leftToSweep: number
  /** The names of those that failed. */
  failedTests: string[]
}

/** How a test file went, and what it took. */
export type Outcome = {
  name: string
  tally: Tally
  seconds: number
  processorSeconds: number
  costs: Cost[]
  output: string
}
type Cost = { test: string; seconds: number; processorSeconds: number }

/**
 * A message of test/support/run-file.ts: at the beginning of each test its name, at the end of a file how it went, and each
 * time the seconds of processor that its process has taken so far.
 */
export type Message = ({ test: string } | Tally) & { processorSeconds: number }

/** Both outputs of a process say by it that all of a file has been printed. */
export const END_OF_FILE = '\u0004'

/** The arguments that Node.js is started with for test files, and its folder. */
export type Place = { program: string; execArgv: string[]; dir: string; env?: NodeJS.ProcessEnv }

/** A process that runs one test file after another. */
export class TestProcess {
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown>
  readonly #exited: Promise<unknown[]>
  #output = ''
  #processorSeconds = 0
  #onOutput = () => {}
  isGone = false

  constructor({ program, execArgv, dir, env }: Place) {
    this.#child = fork(program, {
      cwd: dir,
      detached: true, // so that it has a group, which is ended as one
      // Node.js 20.11.0 hands work on files to the kernel's own threads, past strace, limits and other users' permissions.
      env: { ...process.env, ...env, UV_USE_IO_URING: '0' },
      execArgv,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    })
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.setEncoding('utf8').on('data', text => {
        this.#output += text
        this.#onOutput()
      })
    this.#closed = new Promise(resolve => this.#child.once('close', resolve))
    this.#exited = new Promise(resolve => this.#child.once('exit', (...how) => resolve(how)))
    this.#exited.then(() => (this.isGone = true))
  }

  /** Run a file of test/. If the process ends meanwhile, or a test lets nothing else run, that is a fault of the file. */
  async run(name: string): Promise<Outcome> {
    const startedMs = performance.now()
    const processorBefore = this.#processorSeconds
    const costs: Cost[] = []
    let test = 'its beginning'
    let testStartedMs = startedMs
    const endTest = (usedSeconds: number) => {
      const seconds = secondsSince(testStartedMs)
      costs.push({ test, seconds, processorSeconds: rounded(usedSeconds - this.#processorSeconds) })
      testStartedMs = performance.now()
      this.#processorSeconds = usedSeconds
    }
    let isLate = false
    // A test that only waits ends itself at the limit, and the next one runs. This is for one that lets nothing else run.
    const late = setTimeout(() => {
      isLate = true
      this.kill()
    }, testLimitMs + 5000)
    const told = new Promise<Tally>(resolve => {
      this.#child.on('message', (message: Message) => {
        endTest(message.processorSeconds)
        late.refresh()
        if ('test' in message) test = `"${message.test}"`
        else resolve(message)
      })
    })
    const printed = new Promise<void>(resolve => {
      this.#onOutput = () => this.#output.split(END_OF_FILE).length > 2 && resolve()
    })
    this.#child.send(name)
    const tally = await Promise.race([
      Promise.all([told, printed]).then(([tally]) => tally),
      this.#exited.then(([code, signal]): Tally => {
        const how = isLate
          ? `ended: ${test} took longer than ${testLimitMs / 1000} s`
          : `ended in ${test}, before its last test (${signal ?? `exit code ${code}`})`
        return {
          passed: 0,
          failed: 0,
          faults: [`${name} ${how}`],
          skips: [],
          leftToSweep: 0,
          failedTests: [],
        }
      }),
    ])
    clearTimeout(late)
    this.#child.removeAllListeners('message')
    if (this.isGone) await this.end()
    const output = this.#output.replaceAll(END_OF_FILE, '').trim()
    this.#output = ''
    return {
      name,
      tally,
      output,
      costs,
      seconds: secondsSince(startedMs),
      processorSeconds: rounded(this.#processorSeconds - processorBefore),
    }
  }

  /** Let it end, and end whatever its tests have left running. */
  async end(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect()
    await Promise.race([this.#exited, delay(5000, undefined, { ref: false })])
    this.kill()
    await this.#exited
    await Promise.race([this.#closed, delay(1000)]) // what has left the group may keep the output open
  }

  kill(): void {
    try {
      process.kill(-this.#child.pid!, 'SIGKILL')
    } catch {
      // There is nobody left in it.
    }
  }
}

export function secondsSince(startedMs: number): number {
  return rounded((performance.now() - startedMs) / 1000)
}

export function rounded(seconds: number): number {
  return Math.round(seconds * 10) / 10
}
