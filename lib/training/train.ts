import { existsSync, lstatSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { messageOf, TrainerError } from '../errors.ts'
import { NEXT_MANIFEST } from '../models/manifest.ts'
import { publishedFiles } from '../models.ts'
import { accountOf } from '../storage/capacity.ts'
import { emptyFolder } from '../storage/empty-folder.ts'
import { lookAt } from '../storage/measure.ts'
import { trainingArgv, trainingEnvironment } from './environment.ts'
import { countsAtOnce } from './estimate.ts'
import { guard } from './guard.ts'
import { assertSameFolder, type Job } from './job.ts'
import { diskFull, type Figures, inodesGone, limitReached } from './limit.ts'
import type { Budget } from './preflight.ts'
import { Training, type TrainingExit } from './process.ts'
import { Progress } from './progress.ts'
import { type Containment, containedArgv } from './sandbox.ts'

/** Room beside one largest file for folders and small files. */
const FILE_SLACK_BYTES = 256 * 1024

/** What is known of a training that exited with 0. */
export type Report = {
  seconds: number
  /** Why it must have run out of space, if it did: such a training may exit with 0 all the same. */
  ranOut: TrainerError | undefined
}

/**
 * Run the job's training under its guard until it ends by itself, and end whatever it left running; its temporary files
 * go too.
 *
 * @throws {TrainerError} `training-failed` (non-zero exit, timed out), `quota-exceeded`, `no-space`, or the
 * interruption; nothing of the training lives on in any case
 */
export async function train(job: Job, budget: Budget): Promise<Report> {
  const { name, quota, dir, emit, onPrune, run } = job
  // A flood of output is garbage at once: V8 would let its space for new objects grow by 30 MiB over it.
  setFlagsFromString('--semi-space-growth-factor=1')
  const command = trainingArgv(quota, dir, budget.limitBytes)
  const published = await publishedFiles(dir, quota.models)
  const env = trainingEnvironment(name, quota, dir, budget.limitBytes)
  const isCounted = countsAtOnce(dir)
  run.signal.throwIfAborted()
  const progress = new Progress(job, budget.limitBytes)
  const over = new AbortController()
  refuseSuspension(job, over.signal)
  const interrupted = interruption(job, over.signal)
  interrupted.catch(() => {}) // may come when it is not waited for
  const training = await Training.start(
    {
      argv: containedArgv(command, containmentOf(job, budget, env.PATH!)),
      cwd: run.quotas.dir,
      env,
      lockFd: run.lockFd!,
      isSandboxed: budget.isSandboxed,
    },
    {
      onLines: lines => progress.takeLines(lines),
      onRetry: fault =>
        emit({ event: 'warning', job: name, message: `The sandbox failed and is made anew: ${fault}` }),
      interrupted,
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
    rules: { prune: quota.prune, keep: published },
    training,
    emit,
    onPrune,
    onLook,
  }
  const guarding = guard(watch, over.signal)
  let figures: Figures | undefined
  try {
    await Promise.race([training.exited, guarding, interrupted])
    over.abort()
    await guarding // which may have been what ended it, and says why
  } catch (error) {
    await training.end()
    throw error
  } finally {
    over.abort()
    await training.kill()
    await guarding.catch(() => {}) // told above, or the run has another reason to end
    progress.close()
    emit({ event: 'train.exit', job: name, ...(await training.exited) })
    // Before temporary files go, which may be what filled it.
    figures = await figuresOf(budget).catch(() => undefined)
    await clearUp(job, budget.folderId)
  }
  const exit = await training.exited
  const ranOut = explainSpace(budget, figures ?? (await figuresOf(budget)), exit, progress)
  if (exit.exitCode !== 0) throw ranOut ?? failed(name, exit, progress)
  return { seconds: exit.seconds, ranOut }
}

/**
 * Remove what must not outlive a training: temporary files, and what only a hostile one leaves where no sandbox keeps it
 * from that. Nothing of it runs any more, so what is looked at is what is removed.
 */
async function clearUp(job: Job, folderId: string | undefined): Promise<void> {
  const { name, dir, workDir, emit } = job
  try {
    assertSameFolder(job, folderId)
    // To be redone at the next start as if it were a publication of ours.
    rmSync(join(dir, NEXT_MANIFEST), { recursive: true, force: true })
    if (lstatSync(workDir, { throwIfNoEntry: false })?.isDirectory() === false) {
      rmSync(workDir)
      throw new TrainerError(
        'storage',
        `${workDir} was no folder any more after the training; what it was is removed`,
      )
    }
    const tmp = join(workDir, 'tmp')
    if (existsSync(tmp)) await emptyFolder(tmp)
  } catch (error) {
    emit({ event: 'warning', job: name, message: messageOf(error) })
  }
}

function containmentOf(
  { dir, run }: Job,
  { isSandboxed, limitBytes, keptBytes }: Budget,
  path: string,
): Containment {
  const maxFileBytes = Math.max(limitBytes - keptBytes - FILE_SLACK_BYTES, FILE_SLACK_BYTES)
  return { jobDir: dir, workingDir: run.quotas.dir, isSandboxed, maxFileBytes, path }
}

/** Ctrl-Z would stop us and not the training, which nobody would watch then. */
function refuseSuspension({ name, emit }: Job, over: AbortSignal): void {
  const message = 'SIGTSTP (Ctrl-Z) has no effect: its training would go on unwatched; Ctrl-C ends both'
  const refuse = () => emit({ event: 'warning', job: name, message })
  process.on('SIGTSTP', refuse)
  over.addEventListener('abort', () => process.off('SIGTSTP', refuse))
}

/** Rejects when the run is interrupted or the training's time is up; both by the monotonic clock. */
function interruption({ name, quota, run, emit }: Job, over: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const interrupt = () => {
      const message = `${messageOf(run.signal.reason)}; its training is being ended, with 10 s to save`
      emit({ event: 'warning', job: name, message })
      reject(run.signal.reason)
    }
    if (run.signal.aborted) interrupt()
    run.signal.addEventListener('abort', interrupt, { signal: over })
    if (quota.timeoutMinutes === undefined) return
    const late = new TrainerError(
      'training-failed',
      `${name}'s training timed out after ${quota.timeoutMinutes} min; raise its timeoutMinutes or make it faster`,
    )
    const timer = setTimeout(reject, quota.timeoutMinutes * 60_000, late)
    over.addEventListener('abort', () => clearTimeout(timer))
  })
}

/** What the job uses now. */
async function figuresOf({ dir, isCapped }: Budget): Promise<Figures> {
  return isCapped ? accountOf(dir) : await lookAt(dir, { most: 0 })
}

/**
 * Was it the quota, or others on the disk, that stopped this training? Only what was measured when it ended tells; its
 * words alone are no evidence, since they may be about anything. Undefined if space was not the matter.
 */
function explainSpace(
  budget: Budget,
  figures: Figures,
  { signal }: TrainingExit,
  { saysOutOfSpace }: Progress,
): TrainerError | undefined {
  const { limitBytes, limitInodes, reserveBytes, reserveInodes, isCapped } = budget
  const { usedBytes, usedInodes, freeBytes, freeInodes } = figures
  const how = 'ran into its limit'
  const isAtLimit = usedBytes > Math.min(0.97 * limitBytes, limitBytes - 2 * FILE_SLACK_BYTES)
  const isFull = isCapped && freeBytes < 0.03 * limitBytes
  if (isAtLimit || signal === 'SIGXFSZ' || (isFull && (saysOutOfSpace || signal === 'SIGBUS')))
    return limitReached(budget, figures, how)
  if (usedInodes > 0.97 * limitInodes) return inodesGone(budget, figures, how)
  if (!saysOutOfSpace) return undefined
  if (freeInodes <= reserveInodes) return inodesGone(budget, figures, how)
  return freeBytes <= reserveBytes ? diskFull(budget, figures) : undefined
}

function failed(
  job: string,
  { exitCode, signal }: TrainingExit,
  { lastError, lastLine, logPath }: Progress,
): TrainerError {
  const how = signal ? `was ended by ${signal}` : `ended with exit code ${exitCode}`
  const words = lastError ? `its error was "${lastError}"` : `its last line was "${lastLine}"`
  const said = lastLine ? `${words}, all its output is in ${logPath}` : 'it printed nothing'
  return new TrainerError('training-failed', `${job}'s training ${how}; ${said}`)
}
