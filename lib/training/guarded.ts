import { setTimeout as delay } from 'node:timers/promises'
import { messageOf, type TrainerError } from '../errors.ts'
import { assertOwnLock, onLostLock } from '../run/lost-lock.ts'
import type { Job } from '../run.ts'
import { stateDirOf } from '../settings/layout.ts'
import { giveFolder } from '../storage/mend-folder.ts'
import { unlessAborted } from '../system/abort.ts'
import { containmentOf } from './containment.ts'
import { trainingEnvironment } from './environment.ts'
import { countsAtOnce } from './estimate.ts'
import { guard } from './guard.ts'
import { assertSameFolder } from './job.ts'
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
export type Guarded = {
  training: Training
  progress: Progress
  /** Aborted when another run has the lock: by then the files are that one's. */
  lost: AbortSignal
  /** Aborted when it is to end: with the run, when its time is up, when the lock is lost. */
  stop: AbortSignal
  /**
   * Wait until it ends by itself, and end it with its grace if it must not go on. No process of it is left then, unless
   * one is in a system call that no signal ends.
   *
   * @returns how full it was in the last seconds
   * @throws {TrainerError} of its guard, or the reason why it was to end
   */
  wait: () => Promise<Figures>
}

/**
 * Start a program of the job's own in its sandbox, with its environment and the room that it has, and its guard beside it.
 *
 * @throws {TrainerError} `training-failed` if it cannot be started, `config` if its command is too long; the reason why it
 * is to end, if that comes first
 */
export async function startGuarded(job: Job, budget: Budget, program: Program): Promise<Guarded> {
  const { name, quota, workDir, tmpDir, emit, onPrune, onFault, run } = job
  const { isSandboxed, toldBytes, limitBytes } = budget
  const user = isSandboxed ? trainingUser() : undefined
  if (user !== undefined) await giveFolder(workDir, user)
  const env = trainingEnvironment(job, toldBytes, (isSandboxed && shortTemporaryFolder()) || tmpDir)
  const containment = containmentOf(job, budget, env.PATH!, program.network)
  const command = { ...contain(program.argv, containment), cwd: run.quotas.dir, env, lockFd: run.lockFd! }
  // Try it now: later its writes would be taken for those of the trial.
  const isCounted = countsAtOnce(job.jobDir)
  run.signal.throwIfAborted()

  const progress = new Progress(job, limitBytes)
  const over = new AbortController()
  refuseSuspension(job, program, over.signal)
  run.signal.addEventListener('abort', () => tellOfInterruption(job, program), { signal: over.signal })
  const lost = onLostLock(stateDirOf(run.modelsDir), over.signal)
  const stop = AbortSignal.any([run.signal, lateness(program, over.signal), lost])
  const training = await Training.start(command, {
    onLines: lines => progress.takeLines(lines),
    onRedraw: line => progress.takeRedraw(line),
    onRetry: fault =>
      emit({ event: 'warning', job: name, message: `the sandbox failed and is set up again: ${fault}` }),
    signal: stop,
  }).catch(error => {
    over.abort()
    progress.close()
    throw error
  })

  const keep = [...budget.rules.keep, ...(program.keep ?? [])]
  const limits = { ...budget, rules: { ...budget.rules, keep }, countsAtOnce: isCounted }
  const onLook = (figures: Figures) => progress.takeLook(figures)
  const assertOurs = () => {
    assertOwnLock(stateDirOf(run.modelsDir))
    assertSameFolder(job, budget.folderId)
  }
  const watch = { ...limits, training, emit, onPrune, onFault, onLook, assertOurs, interruption: stop }
  const guarding = guard(watch, over.signal)
  // Nobody watches it then, not even while it has its grace. Whoever waits for the guard is told why.
  guarding.catch(() => training.kill()).catch(() => {})

  const wait = async () => {
    try {
      await unlessAborted(Promise.race([training.exited, guarding]), stop)
      over.abort()
      return await guarding // if the guard has ended it, this says why
    } catch (error) {
      await training.end(quota.graceSeconds * 1000)
      over.abort()
      throw await withViolation(error, guarding)
    } finally {
      over.abort()
      await training.kill()
      await guarding.catch(() => {}) // thrown above, or it ends for another reason
      progress.close()
    }
  }
  return { training, progress, lost, stop, wait }
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
