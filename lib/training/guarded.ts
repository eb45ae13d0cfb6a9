import { setTimeout as delay } from 'node:timers/promises'
import { messageOf, type TrainerError } from '../errors.ts'
import { onLostLock } from '../run/lost-lock.ts'
import type { Job } from '../run.ts'
import { stateDirOf } from '../settings/layout.ts'
import { giveFolder } from '../storage/mend-folder.ts'
import { unlessAborted } from '../system/abort.ts'
import { containmentOf } from './containment.ts'
import { trainingEnvironment } from './environment.ts'
import { countsAtOnce } from './estimate.ts'
import { guard } from './guard.ts'
import type { Figures } from './limit.ts'
import type { Budget } from './preflight.ts'
import { Training } from './process.ts'
import { Progress } from './progress.ts'
import { type Containment, contain, shortTemporaryFolder, trainingUser } from './sandbox.ts'
import { withViolation } from './space-failure.ts'

/** A program of the job's own, to be run under its guard: its training, or the command that accepts. */
export type Program = {
  /** What it is called in messages, such as `its training`. */
  title: string
  argv: string[]
  network: Containment['network']
  /** Why it is ended when its time is up, and after how many minutes; undefined if it has all the time. */
  limit: { minutes: number; reason: TrainerError } | undefined
  /** What stays of the job's folder, beside what the budget's rules keep. */
  keep?: string[]
}

/** A program of the job's own that runs under its guard. */
export class Guarded {
  readonly training: Training
  readonly progress: Progress
  /** Aborted when another run has the lock: by then the files are that one's. */
  readonly lost: AbortSignal
  /** Aborted when it is to end: with the run, when its time is up, when the lock is lost. */
  readonly stop: AbortSignal
  /** How full it was in the end, once it has been waited for. */
  fullest: Figures | undefined
  readonly #job: Job
  readonly #over: AbortController
  readonly #guarding: Promise<Figures>

  /**
   * Start it in its sandbox, with its environment and the room that it has.
   *
   * @throws {TrainerError} `training-failed` if it cannot be started, `config` if its command is too long; the reason why
   * it is to end, if that comes first
   */
  static async start(job: Job, budget: Budget, program: Program): Promise<Guarded> {
    const { name, workDir, tmpDir, emit, run } = job
    const { isSandboxed, toldBytes, limitBytes } = budget
    const user = isSandboxed ? trainingUser() : undefined
    if (user !== undefined) await giveFolder(workDir, user)
    const env = trainingEnvironment(job, toldBytes, (isSandboxed && shortTemporaryFolder()) || tmpDir)
    // Try it now: later its writes would be taken for those of the trial.
    const isCounted = countsAtOnce(job.jobDir)
    run.signal.throwIfAborted()
    const containment = containmentOf(job, budget, env.PATH!, program.network)
    const command = { ...contain(program.argv, containment), cwd: run.quotas.dir, env, lockFd: run.lockFd! }
    const progress = new Progress(job, limitBytes)
    const over = new AbortController()
    refuseSuspension(job, program, over.signal)
    run.signal.addEventListener('abort', () => tellOfInterruption(job, program), { signal: over.signal })
    const lost = onLostLock(stateDirOf(run.modelsDir), over.signal)
    const stop = AbortSignal.any([run.signal, lateness(program, over.signal), lost])
    try {
      const training = await Training.start(command, {
        onLines: lines => progress.takeLines(lines),
        onRedraw: line => progress.takeRedraw(line),
        onRetry: fault => {
          const message = `the sandbox failed and is set up again: ${fault}`
          emit({ event: 'warning', job: name, message })
        },
        signal: stop,
      })
      const keep = [...budget.rules.keep, ...(program.keep ?? [])]
      const limits = { ...budget, rules: { ...budget.rules, keep }, countsAtOnce: isCounted }
      return new Guarded(job, limits, { training, progress, over, lost, stop })
    } catch (error) {
      over.abort()
      progress.close()
      throw error
    }
  }

  private constructor(
    job: Job,
    limits: Budget & { countsAtOnce: boolean },
    { over, ...parts }: Pick<Guarded, 'training' | 'progress' | 'lost' | 'stop'> & { over: AbortController },
  ) {
    const { training, progress, stop } = parts
    this.#job = job
    this.#over = over
    this.training = training
    this.progress = progress
    this.lost = parts.lost
    this.stop = stop
    const { emit, onPrune, onFault } = job
    const onLook = (figures: Figures) => progress.takeLook(figures)
    const watch = { ...limits, training, emit, onPrune, onFault, onLook, interruption: stop }
    this.#guarding = guard(watch, over.signal)
    // Nobody watches it then, not even while it has its grace. Whoever waits for the guard is told why.
    this.#guarding.catch(() => training.kill()).catch(() => {})
  }

  /**
   * Wait until it ends by itself, and end it with its grace if it must not go on. No process of it is left then, unless
   * one is in a system call that no signal ends.
   *
   * @throws {TrainerError} of its guard, or the reason why it was to end
   */
  async wait(): Promise<void> {
    const { training, stop } = this
    try {
      await unlessAborted(Promise.race([training.exited, this.#guarding]), stop)
      this.#over.abort()
      await this.#guarding // if the guard has ended it, this says why
    } catch (error) {
      await training.end(this.#job.quota.graceSeconds * 1000)
      this.#over.abort()
      throw await withViolation(error, this.#guarding)
    } finally {
      this.#over.abort()
      await training.kill()
      this.fullest = await this.#guarding.catch(() => undefined) // thrown above, or it ends for another reason
      this.progress.close()
    }
  }
}

/** Refuse Ctrl-Z: it would stop us and not the program, which nobody would watch then. */
function refuseSuspension({ name, emit }: Job, { title }: Program, over: AbortSignal): void {
  const message = `SIGTSTP (Ctrl-Z) has no effect: ${title} would go on unwatched; Ctrl-C ends both`
  const refuse = () => emit({ event: 'warning', job: name, message })
  process.on('SIGTSTP', refuse)
  over.addEventListener('abort', () => process.off('SIGTSTP', refuse))
}

/** Aborted, by the monotonic clock, when the time of a program is up before it is `over`. */
function lateness({ limit }: Program, over: AbortSignal): AbortSignal {
  const late = new AbortController()
  if (limit === undefined) return late.signal
  const { minutes, reason } = limit
  delay(minutes * 60_000, undefined, { signal: over }).then(
    () => late.abort(reason),
    () => {},
  )
  return late.signal
}

function tellOfInterruption({ name, quota, run, emit }: Job, { title }: Program): void {
  const message = `${messageOf(run.signal.reason)}; ${title} is being ended, with ${quota.graceSeconds} s to save`
  emit({ event: 'warning', job: name, message })
}
