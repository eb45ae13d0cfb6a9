import { TrainerError } from '../errors.ts'
import type { Generation } from '../models/generations.ts'
import type { Staged } from '../models/stage.ts'
import type { acceptPlaceholders } from '../quotas.ts'
import type { Job } from '../run.ts'
import { foldersIn } from '../settings/layout.ts'
import { clearUp } from './clear-up.ts'
import { fillerOf } from './environment.ts'
import { type Guarded, startGuarded } from './guarded.ts'
import type { Budget } from './preflight.ts'

/** The time limit of a command where the job has no `timeoutMinutes`. */
const DEFAULT_MINUTES = 60

/**
 * Run the job's own command on a new generation: in the sandbox of a training, without a network, inside the quota.
 *
 * @returns why it does not accept, if it does not
 * @throws {TrainerError} `no-space` if others fill the disk meanwhile, `storage`, `locked`; `training-failed` or `config` if
 * it cannot be started; or the interruption
 */
export async function verdictOf(
  job: Job,
  budget: Budget,
  command: string[],
  staged: Staged,
  current: Generation | undefined,
): Promise<string | undefined> {
  const { name, quota, publishedDir, emit } = job
  const { isSandboxed } = budget
  const values: Record<(typeof acceptPlaceholders)[number], string> = {
    candidateDir: staged.dir,
    modelDir: current?.dir ?? publishedDir,
  }
  if (!isSandboxed) {
    emit({
      event: 'warning',
      job: name,
      message: "accept's command runs without a sandbox, so it has a network",
    })
  }
  const minutes = quota.timeoutMinutes ?? DEFAULT_MINUTES
  const late = new TrainerError('training-failed', `accept's command took longer than ${minutes} min`)
  let guarded: Guarded | undefined
  try {
    guarded = await startGuarded(job, budget, {
      title: "accept's command",
      argv: command.map(fillerOf(values).fill),
      network: isSandboxed ? 'none' : 'host',
      limit: { minutes, reason: late },
      keep: [foldersIn(publishedDir).generationsDir],
    })
    return await endOf(guarded, late, job)
  } finally {
    // By then the files there are the other run's.
    if (!guarded?.lost.aborted) await clearUp(job, budget.folderId)
  }
}

/**
 * Wait for the command's end; what others do to the machine meanwhile is no verdict.
 *
 * @returns as {@link verdictOf}
 */
async function endOf(
  { training, progress, wait }: Guarded,
  late: TrainerError,
  { name, emit }: Job,
): Promise<string | undefined> {
  try {
    await wait()
  } catch (error) {
    if (!(error instanceof TrainerError && (error.usage || error.code === 'training-failed'))) throw error
    if (error.message === late.message) return late.message
    // By now what it took too much has gone.
    if (error.usage) emit({ event: 'warning', job: name, message: error.message })
    return `accept's command was ended${error.usage ? ' because it took too much room' : ''}: ${error.message}`
  }
  if (training.isUnkillable) return `accept's command: ${training.describeUnkillable()}`
  const { exitCode, signal } = await training.exited
  if (exitCode === 0) return undefined
  const how = signal ? `was ended by ${signal}` : `ended with exit code ${exitCode}`
  return `accept's command ${how}${progress.lastLine ? `; its last line was "${progress.lastLine}"` : ''}`
}
