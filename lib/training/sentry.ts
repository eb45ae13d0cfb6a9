import { Worker } from 'node:worker_threads'
import { safePath } from '../system/programs.ts'
import { stopCommand } from './enter-sandbox.ts'
import type { Training } from './process.ts'

/** The guard tells so often that it goes on. To wake for it is most of what the sentry costs. */
const BEAT_MS = 150
const LOOK_MS = 100
/** So late it is held up: it reads for a millisecond at a time. */
const LATE_NS = 300_000_000n
/** So late nobody hears a signal either. */
const HUNG_NS = 1_000_000_000n
/** Something may have woken it. */
const AGAIN_NS = 250_000_000n
/** A program that is held up stops nobody. */
const ENTERING_MS = 1000
/** Places in what both share: when the guard was last seen, how full the disk may be, how often the training was stopped. */
const [SEEN, MOST, STOPS, NEVER] = [0, 1, 2, 3]

/** What the thread does. A text needs neither a loader, which would take a second of a slow machine, nor a file of its own. */
const STAND = `
const { statfsSync } = require('node:fs')
const { spawnSync } = require('node:child_process')
const { shared, dir, pid, first, stop } = require('node:worker_threads').workerData
const signal = (pid, name) => { try { process.kill(pid, name) } catch {} } // it may have ended
const tell = () => Atomics.add(shared, ${STOPS}, 1n)
for (let stoppedNs = 0n; ; ) {
  Atomics.wait(shared, ${NEVER}, 0n, ${LOOK_MS})
  const nowNs = process.hrtime.bigint()
  const lateNs = nowNs - Atomics.load(shared, ${SEEN})
  if (lateNs < ${LATE_NS}n || nowNs - stoppedNs < ${AGAIN_NS}n) continue
  const { blocks, bfree, bsize } = statfsSync(dir)
  const isFull = (blocks - bfree) * bsize > Number(Atomics.load(shared, ${MOST}))
  if (!isFull && lateNs < ${HUNG_NS}n) continue
  stoppedNs = nowNs
  signal(-pid, 'SIGSTOP')
  tell()
  if (!stop) continue
  signal(first, 'SIGCONT') // it takes in the dead
  spawnSync(stop[0], stop.slice(1), { stdio: 'ignore', timeout: ${ENTERING_MS}, killSignal: 'SIGKILL' })
  tell() // by then the guard may have let it go on already
}`

/**
 * Stands in for a guard that is held up, in a thread of its own: it stops the training when its disk is as full as it may be, and
 * before long in any case.
 * To read what the kernel tells of a process, or to list a folder, waits for whoever holds that just then, such as a process that
 * runs another program. A training can see to it that this one hardly ever gets a processor; once it is stopped, that one does.
 */
export class Sentry {
  readonly #shared = new BigInt64Array(new SharedArrayBuffer(32))
  readonly #worker: Worker
  readonly #beating: NodeJS.Timeout
  #seenStops = 0n

  constructor(dir: string, { pid, sandbox }: Pick<Training, 'pid' | 'sandbox'>) {
    this.allow(Number.MAX_SAFE_INTEGER)
    const beat = () => Atomics.store(this.#shared, SEEN, process.hrtime.bigint())
    beat()
    this.#beating = setInterval(beat, BEAT_MS).unref()
    const stop = sandbox && stopCommand(sandbox)
    this.#worker = new Worker(STAND, {
      eval: true,
      workerData: { shared: this.#shared, dir, pid, first: sandbox?.first, stop },
      execArgv: [],
      env: { PATH: safePath, LC_ALL: 'C' },
      resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 1 },
    })
    this.#worker.unref()
    // The guard watches on without it.
    this.#worker.on('error', () => {})
  }

  /** Say how full the disk may be, by its own account, before the training has passed its limit. */
  allow(accountBytes: number): void {
    Atomics.store(this.#shared, MOST, BigInt(Math.ceil(accountBytes)))
  }

  /** Has it stopped the training since this was asked last? Whoever asks sees to the rest. */
  hasStopped(): boolean {
    const stops = Atomics.load(this.#shared, STOPS)
    const isNew = stops !== this.#seenStops
    this.#seenStops = stops
    return isNew
  }

  close(): void {
    clearInterval(this.#beating)
    void this.#worker.terminate()
  }
}
