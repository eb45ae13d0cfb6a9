import { TrainerError } from '../errors.ts'
import type { Job } from '../run.ts'
import { accountOf } from '../storage/capacity.ts'
import { lookAt } from '../storage/measure.ts'
import { clearUp } from './clear-up.ts'
import { trainingArgv } from './environment.ts'
import { explainFailure } from './failure.ts'
import { type Program, startGuarded } from './guarded.ts'
import type { Figures } from './limit.ts'
import type { Budget } from './preflight.ts'
import type { Complaint } from './progress.ts'
import { describePruned } from './pruned-paths.ts'
import { explainSpace, hasFileAtLimit } from './space-failure.ts'

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
  const { name, quota, emit, onPrune, onFault } = job
  const argv = trainingArgv(job, budget.toldBytes)
  const { training, progress, lost, stop, wait } = await startGuarded(job, budget, {
    title: 'its training',
    argv,
    network: quota.network,
    limit: timeLimitOf(job),
  })
  emit({ event: 'train.start', job: name, pid: training.pid, argv })

  let fullest: Figures | undefined
  let end: Figures | undefined
  let isFileAtLimit = false
  try {
    fullest = await wait()
  } finally {
    if (training.isUnkillable) emit({ event: 'warning', job: name, message: training.describeUnkillable() })
    else {
      const ended = await training.exited
      emit({ event: 'train.exit', job: name, ...ended })
      // Before temporary files go, which may be what filled it. Whoever has ended it knows why.
      if (fullest) end = await figuresOf(budget).catch(() => undefined)
      if (fullest && ended.signal === 'SIGXFSZ')
        isFileAtLimit = await hasFileAtLimit(budget, stop).catch(() => false)
      // By then the files there are the other run's.
      if (!lost.aborted) await clearUp(job, budget.folderId)
    }
  }
  if (training.isUnkillable) throw new TrainerError('training-failed', training.describeUnkillable())
  const exit = await training.exited
  const ranOut = await explainSpace(
    budget,
    { end: end ?? (await figuresOf(budget)), fullest, isFileAtLimit },
    exit,
    progress,
    // What ended with 0 may have left models, which are judged first.
    { ...budget.rules, onPrune, onFault, signal: stop, removesExcess: exit.exitCode !== 0 && !lost.aborted },
  )
  if (exit.exitCode !== 0) throw ranOut ?? explainFailure(job, budget.isSandboxed, exit, progress)
  if (progress.complaint) emit({ event: 'warning', job: name, message: doubtOf(progress.complaint) })
  return { seconds: exit.seconds, ranOut }
}

function timeLimitOf({ name, quota: { timeoutMinutes: minutes } }: Job): Program['limit'] {
  if (minutes === undefined) return undefined
  const message = `${name}'s training timed out after ${minutes} min; raise its timeoutMinutes or make it faster`
  return { minutes, reason: new TrainerError('training-failed', message) }
}

/** Look at what the job uses now. */
async function figuresOf({ dir, isCapped }: Budget): Promise<Figures> {
  return isCapped ? accountOf(dir) : await lookAt(dir, { most: 0 })
}

/** A training may go on without what it misses, such as the best of its checkpoints. */
function doubtOf({ line, pruned }: Complaint): string {
  return `its training ended with 0, but said "${line}" of ${describePruned(pruned)}; see that its model is the one that was meant`
}
