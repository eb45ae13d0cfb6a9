import { setTimeout as delay } from 'node:timers/promises'
import { messageOf, TrainerError } from '../errors.ts'
import type { Generation } from '../models/generations.ts'
import type { Staged } from '../models/stage.ts'
import { acceptPlaceholders } from '../quotas.ts'
import type { Job } from '../run.ts'
import { foldersIn } from '../settings/layout.ts'
import { giveFolder, mendWork } from '../storage/mend-folder.ts'
import { unlessAborted } from '../system/abort.ts'
import { containmentOf } from './containment.ts'
import { trainingEnvironment } from './environment.ts'
import { countsAtOnce } from './estimate.ts'
import { guard } from './guard.ts'
import type { Budget } from './preflight.ts'
import { Training } from './process.ts'
import { Progress } from './progress.ts'
import { contain, shortTemporaryFolder, trainingUser } from './sandbox.ts'
import { withViolation } from './space-failure.ts'

/** The time limit of a command where the job has no `timeoutMinutes`. */
const DEFAULT_MINUTES = 60

/**
 * Run the job's own command on a new generation: in the sandbox of a training, without a network, inside the quota.
 *
 * @returns why it does not accept, if it does not
 * @throws the interruption
 */
export async function verdictOf(
  job: Job,
  budget: Budget,
  command: string[],
  staged: Staged,
  current: Generation | undefined,
): Promise<string | undefined> {
  const { name, quota, jobDir, publishedDir, workDir, tmpDir, emit, onPrune, onFault, run } = job
  const values: Record<(typeof acceptPlaceholders)[number], string> = {
    candidateDir: staged.dir,
    modelDir: current?.dir ?? publishedDir,
  }
  const pattern = new RegExp(`\\{(${acceptPlaceholders.join('|')})\\}`, 'g')
  const argv = command.map(it => it.replace(pattern, (_, key: keyof typeof values) => values[key]))
  const { isSandboxed, limitBytes, rules } = budget
  if (!isSandboxed) {
    emit({
      event: 'warning',
      job: name,
      message: "accept's command runs without a sandbox, so it has a network",
    })
  }
  await mendWork(workDir)
  const user = isSandboxed ? trainingUser() : undefined
  if (user !== undefined) await giveFolder(workDir, user)
  const env = trainingEnvironment(job, budget.toldBytes, (isSandboxed && shortTemporaryFolder()) || tmpDir)
  // Try it now: later the command's writes would be taken for those of the trial.
  const isCounted = countsAtOnce(jobDir)
  const progress = new Progress(job, limitBytes)
  const over = new AbortController()
  const minutes = quota.timeoutMinutes ?? DEFAULT_MINUTES
  const late = delay(minutes * 60_000, 'late' as const, { signal: over.signal, ref: false }).catch(
    () => undefined,
  )
  try {
    const process = await Training.start(
      {
        ...contain(argv, containmentOf(job, budget, env.PATH!, isSandboxed ? 'none' : 'host')),
        cwd: run.quotas.dir,
        env,
        lockFd: run.lockFd!,
      },
      {
        onLines: lines => progress.takeLines(lines),
        onRedraw: line => progress.takeRedraw(line),
        onRetry: () => {},
        signal: run.signal,
      },
    )
    const keep = [...rules.keep, foldersIn(publishedDir).generationsDir]
    const watch = {
      ...budget,
      rules: { ...rules, keep },
      countsAtOnce: isCounted,
      training: process,
      emit,
      onPrune,
      onFault,
      onLook: progress.takeLook.bind(progress),
    }
    const guarding = guard(watch, over.signal)
    // Nobody watches it then, not even while it has its grace.
    guarding.catch(() => process.kill()).catch(() => {})
    const end = async () => {
      await process.end(quota.graceSeconds * 1000)
      over.abort()
    }
    let isLate = false
    try {
      isLate = (await unlessAborted(Promise.race([process.exited, guarding, late]), run.signal)) === 'late'
      if (!isLate) {
        over.abort()
        await guarding // if the guard has ended it, this says why
      }
    } catch (error) {
      await end()
      throw await withViolation(error, guarding)
    }
    await end()
    await guarding.catch(() => undefined) // it is late all the same
    if (isLate) return `accept's command took longer than ${minutes} min`
    if (process.isUnkillable) return `accept's command: ${process.describeUnkillable()}`
    const { exitCode, signal } = await process.exited
    if (exitCode === 0) return undefined
    const how = signal ? `was ended by ${signal}` : `ended with exit code ${exitCode}`
    return `accept's command ${how}${progress.lastLine ? `; its last line was "${progress.lastLine}"` : ''}`
  } catch (error) {
    if (run.signal.aborted || !(error instanceof TrainerError)) throw error
    const what = error.usage ? 'was ended because it took too much room' : 'could not be run'
    return `accept's command ${what}: ${messageOf(error)}`
  } finally {
    over.abort()
    progress.close()
    await mendWork(workDir)
  }
}
