import { lstatSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, TrainerError } from '../errors.ts'
import { NEXT_MANIFEST } from '../models/manifest.ts'
import { assertOwnLock, onLostLock } from '../run/lost-lock.ts'
import type { Job } from '../run.ts'
import { NEXT_CURRENT, stateDirOf } from '../settings/layout.ts'
import { accountOf } from '../storage/capacity.ts'
import { lookAt } from '../storage/measure.ts'
import { giveFolder, mendWork } from '../storage/mend-folder.ts'
import { unlessAborted } from '../system/abort.ts'
import { containmentOf } from './containment.ts'
import { trainingArgv, trainingEnvironment } from './environment.ts'
import { countsAtOnce } from './estimate.ts'
import { explainFailure } from './failure.ts'
import { guard } from './guard.ts'
import { assertSameFolder } from './job.ts'
import type { Figures } from './limit.ts'
import type { Budget } from './preflight.ts'
import { Training } from './process.ts'
import { type Complaint, Progress } from './progress.ts'
import { describePruned } from './pruned-paths.ts'
import { contain, shortTemporaryFolder, trainingUser } from './sandbox.ts'
import { explainSpace, hasFileAtLimit, withViolation } from './space-failure.ts'

/** The outcome of a training that exited with 0. */
export type Report = {
  seconds: number
  /** Why it must have run out of space, if it did: such a training may exit with 0 all the same. */
  ranOut: TrainerError | undefined
}

/**
 * Run the job's training under its guard until it ends by itself; then end every process that it left, and delete its
 * temporary files.
 *
 * @throws {TrainerError} `training-failed` (non-zero exit, timed out), `quota-exceeded`, `no-space`, `locked` if another run
 * has the lock by now, or the interruption; nothing of the training lives on in any case
 */
export async function train(job: Job, budget: Budget): Promise<Report> {
  const { name, quota, workDir, emit, onPrune, onFault, run } = job
  const command = trainingArgv(job, budget.toldBytes)
  const temporary = (budget.isSandboxed && shortTemporaryFolder()) || job.tmpDir
  const env = trainingEnvironment(job, budget.toldBytes, temporary)
  const user = budget.isSandboxed ? trainingUser() : undefined
  if (user !== undefined) await giveFolder(workDir, user)
  const isCounted = countsAtOnce(job.jobDir)
  run.signal.throwIfAborted()
  const progress = new Progress(job, budget.limitBytes)
  const over = new AbortController()
  refuseSuspension(job, over.signal)
  run.signal.addEventListener('abort', () => tellOfInterruption(job), { signal: over.signal })
  const lost = onLostLock(stateDirOf(run.modelsDir), over.signal)
  const stop = AbortSignal.any([run.signal, timeoutOf(job, over.signal), lost])
  const training = await Training.start(
    {
      ...contain(command, containmentOf(job, budget, env.PATH!, quota.network)),
      cwd: run.quotas.dir,
      env,
      lockFd: run.lockFd!,
    },
    {
      onLines: lines => progress.takeLines(lines),
      onRedraw: line => progress.takeRedraw(line),
      onRetry: fault =>
        emit({ event: 'warning', job: name, message: `the sandbox failed and is set up again: ${fault}` }),
      signal: stop,
    },
  ).catch(error => {
    over.abort()
    progress.close()
    throw error
  })
  emit({ event: 'train.start', job: name, pid: training.pid, argv: command })

  const onLook = (figures: Figures) => progress.takeLook(figures)
  const watch = {
    ...budget,
    countsAtOnce: isCounted,
    training,
    emit,
    onPrune,
    onFault,
    onLook,
    interruption: stop,
  }
  const guarding = guard(watch, over.signal)
  // Nobody watches it then, not even while it has its grace. Whoever waits for the guard is told why.
  guarding.catch(() => training.kill()).catch(() => {})
  let hasFailed = false
  let figures: Figures | undefined
  let fullest: Figures | undefined
  let isFileAtLimit = false
  try {
    await unlessAborted(Promise.race([training.exited, guarding]), stop)
    over.abort()
    await guarding // if the guard has ended it, this says why
  } catch (error) {
    hasFailed = true
    await training.end(quota.graceSeconds * 1000)
    over.abort()
    throw await withViolation(error, guarding)
  } finally {
    over.abort()
    await training.kill()
    fullest = await guarding.catch(() => undefined) // thrown above, or the run ends for another reason
    progress.close()
    if (training.isUnkillable) emit({ event: 'warning', job: name, message: training.describeUnkillable() })
    else {
      const ended = await training.exited
      emit({ event: 'train.exit', job: name, ...ended })
      // Before temporary files go, which may be what filled it. Whoever has ended it knows why.
      if (!hasFailed) figures = await figuresOf(budget).catch(() => undefined)
      if (!hasFailed && ended.signal === 'SIGXFSZ')
        isFileAtLimit = await hasFileAtLimit(budget, stop).catch(() => false)
      // By then the files there are the other run's.
      if (!lost.aborted) await clearUp(job, budget.folderId)
    }
  }
  if (training.isUnkillable) throw new TrainerError('training-failed', training.describeUnkillable())
  const exit = await training.exited
  const ranOut = await explainSpace(
    budget,
    { end: figures ?? (await figuresOf(budget)), fullest, isFileAtLimit },
    exit,
    progress,
    stop,
  )
  if (exit.exitCode !== 0) throw ranOut ?? explainFailure(job, budget.isSandboxed, exit, progress)
  if (progress.complaint) emit({ event: 'warning', job: name, message: doubtOf(progress.complaint) })
  return { seconds: exit.seconds, ranOut }
}

/**
 * Remove what must not outlive a training: its temporary files, and whatever a hostile training planted outside a sandbox.
 * None of its processes is left, so nothing can change between check and removal.
 */
async function clearUp(job: Job, folderId: string | undefined): Promise<void> {
  const { name, jobDir: dir, workDir, emit } = job
  try {
    assertOwnLock(stateDirOf(job.run.modelsDir))
    assertSameFolder(job, folderId)
    // The next start would go on with them as if they were a publication of ours.
    for (const name of [NEXT_MANIFEST, NEXT_CURRENT])
      rmSync(join(dir, name), { recursive: true, force: true })
    if (lstatSync(workDir, { throwIfNoEntry: false })?.isDirectory() === false) {
      rmSync(workDir)
      throw new TrainerError(
        'storage',
        `${workDir} was no folder any more after the training; what was there is deleted`,
      )
    }
    await mendWork(workDir)
  } catch (error) {
    emit({ event: 'warning', job: name, message: messageOf(error) })
  }
}

/** Refuse Ctrl-Z: it would stop us and not the training, which nobody would watch then. */
function refuseSuspension({ name, emit }: Job, over: AbortSignal): void {
  const message = 'SIGTSTP (Ctrl-Z) has no effect: its training would go on unwatched; Ctrl-C ends both'
  const refuse = () => emit({ event: 'warning', job: name, message })
  process.on('SIGTSTP', refuse)
  over.addEventListener('abort', () => process.off('SIGTSTP', refuse))
}

/** Aborted, by the monotonic clock, when the job's `timeoutMinutes` are up before the training is `over`. */
function timeoutOf({ name, quota: { timeoutMinutes } }: Job, over: AbortSignal): AbortSignal {
  const late = new AbortController()
  if (timeoutMinutes === undefined) return late.signal
  const message = `${name}'s training timed out after ${timeoutMinutes} min; raise its timeoutMinutes or make it faster`
  const reason = new TrainerError('training-failed', message)
  const timer = setTimeout(() => late.abort(reason), timeoutMinutes * 60_000)
  over.addEventListener('abort', () => clearTimeout(timer))
  return late.signal
}

function tellOfInterruption({ name, quota, run, emit }: Job): void {
  const message = `${messageOf(run.signal.reason)}; its training is being ended, with ${quota.graceSeconds} s to save`
  emit({ event: 'warning', job: name, message })
}

/** Look at what the job uses now. */
async function figuresOf({ dir, isCapped }: Budget): Promise<Figures> {
  return isCapped ? accountOf(dir) : await lookAt(dir, { most: 0 })
}

/** A training may go on without what it misses, such as the best of its checkpoints. */
function doubtOf({ line, pruned }: Complaint): string {
  return `its training ended with 0, but said "${line}" of ${describePruned(pruned)}; see that its model is the one that was meant`
}
