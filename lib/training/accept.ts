import { setTimeout as delay } from 'node:timers/promises'
import { messageOf, TrainerError } from '../errors.ts'
import { foldersIn } from '../layout.ts'
import type { Generation } from '../models/generations.ts'
import { readManifest } from '../models/manifest.ts'
import { rolledBackFrom } from '../models/rollback.ts'
import type { Staged } from '../models/stage.ts'
import { metricsOf } from '../models/trainer-metadata.ts'
import type { Job } from '../run.ts'
import { giveFolder, mendWork } from '../storage/mend-folder.ts'
import { unlessAborted } from '../system/abort.ts'
import { trainingEnvironment } from './environment.ts'
import { countsAtOnce } from './estimate.ts'
import { guard } from './guard.ts'
import type { Budget } from './preflight.ts'
import { Training } from './process.ts'
import { Progress } from './progress.ts'
import { contain, shortTemporaryFolder, trainingUser } from './sandbox.ts'

/** What a command may take where the job has no `timeoutMinutes`. */
const DEFAULT_MINUTES = 60

/** Room beside one largest file, for folders and small files. */
const FILE_SLACK_BYTES = 256 * 1024

/** The figures that were asked for, by name: what the trainer told, and the least that would do. */
type Asked = Record<string, { figure: number | null; limit: number }>

/**
 * Decide whether a new generation takes the place of the current one: by the trainer's figures, by the job's own command,
 * and after a rollback by what tells that it is not the model that was rolled back.
 *
 * @throws {TrainerError} `not-accepted`, which by then is an event with the figures; or the interruption
 */
export async function judgeCandidate(
  job: Job,
  budget: Budget,
  staged: Staged,
  current: Generation | undefined,
): Promise<void> {
  const { name, quota, emit } = job
  const metrics = figuresOf(job, staged, current)
  const reason =
    repetitionOf(job, staged) ??
    shortfallOf(metrics) ??
    (quota.accept?.command && (await verdictOf(job, budget, quota.accept.command, staged, current)))
  if (!reason) return
  emit({ event: 'model.refuse', job: name, reason, metrics })
  throw new TrainerError(
    'not-accepted',
    `${name}'s new model is not accepted: ${reason}; what is published stays`,
  )
}

/** Pick the figures that `accept` asks for. A drop counts only against a published model that is valid. */
function figuresOf({ quota, check }: Job, staged: Staged, current: Generation | undefined): Asked {
  const told = metricsOf(staged.manifest.metadata)
  const isCurrentValid = current !== undefined && !check?.missing
  const before = isCurrentValid ? metricsOf(readManifest(current.dir)?.metadata ?? {}) : {}
  const asked: Asked = {}
  for (const [metric, { min, maxDrop }] of Object.entries(quota.accept?.metrics ?? {})) {
    const former = maxDrop === undefined ? undefined : before[metric]
    const limits = [min, former === undefined ? undefined : former - maxDrop!].filter(it => it !== undefined)
    if (limits.length) asked[metric] = { figure: told[metric] ?? null, limit: Math.max(...limits) }
  }
  return asked
}

function shortfallOf(asked: Asked): string | undefined {
  const short = Object.entries(asked).filter(([, { figure, limit }]) => figure === null || !(figure >= limit))
  if (!short.length) return undefined
  return short
    .map(
      ([metric, { figure, limit }]) => `${metric} is ${figure ?? 'not told'}, at least ${limit} is asked for`,
    )
    .join(', ')
}

/**
 * After a rollback: is this the model that was rolled back, or one of the same data that nothing else vouches for? What is
 * told as `trained_on` says which data it was.
 */
function repetitionOf({ name, quota, publishedDir }: Job, { manifest }: Staged): string | undefined {
  const hasAccept = quota.accept?.command || Object.keys(quota.accept?.metrics ?? {}).length
  for (const { number, dir } of rolledBackFrom(publishedDir)) {
    const former = readManifest(dir)
    if (!former) continue
    const hashes = new Set(Object.values(former.files))
    if (manifest.metadata.models.every(model => hashes.has(manifest.files[model]!)))
      return `it is the model of generation ${number}, from which ${name} was rolled back`
    const [data, formerData] = [manifest, former].map(({ metadata }) => metadata.trained_on)
    const isOther = data !== 'unknown' && formerData !== 'unknown' && data !== formerData
    if (!hasAccept && !isOther)
      return (
        `${name} was rolled back from generation ${number}, and nothing says that this one is better: it was trained on ` +
        'the same data, as far as trained_on tells, and the job has no accept (or let it be: scripts/rollback.ts --release)'
      )
  }
  return undefined
}

/** @returns why the job's own command does not accept, if it does not */
async function verdictOf(
  job: Job,
  budget: Budget,
  command: string[],
  staged: Staged,
  current: Generation | undefined,
): Promise<string | undefined> {
  const { name, quota, jobDir, publishedDir, workDir, tmpDir, emit, onPrune, onFault, run } = job
  const values: Record<string, string> = { candidateDir: staged.dir, modelDir: current?.dir ?? publishedDir }
  const argv = command.map(it => it.replace(/\{(candidateDir|modelDir)\}/g, (_, key: string) => values[key]!))
  const { isSandboxed, isCapped, limitBytes, keptBytes, rules } = budget
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
  const maxFileBytes = Math.max(limitBytes - keptBytes - FILE_SLACK_BYTES, FILE_SLACK_BYTES)
  const bounds = { jobDir, publishedDir, workingDir: run.quotas.dir, isSandboxed, isCapped, maxFileBytes }
  const progress = new Progress(job, limitBytes)
  const over = new AbortController()
  const minutes = quota.timeoutMinutes ?? DEFAULT_MINUTES
  const late = delay(minutes * 60_000, 'late' as const, { signal: over.signal, ref: false }).catch(
    () => undefined,
  )
  try {
    const process = await Training.start(
      {
        ...contain(argv, { ...bounds, network: isSandboxed ? 'none' : 'host', path: env.PATH! }),
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
      countsAtOnce: countsAtOnce(jobDir),
      training: process,
      emit,
      onPrune,
      onFault,
      onLook: progress.takeLook.bind(progress),
    }
    const guarding = guard(watch, over.signal)
    try {
      const ended = await unlessAborted(Promise.race([process.exited, guarding, late]), run.signal)
      if (ended === 'late') return `accept's command took longer than ${minutes} min`
    } finally {
      over.abort()
      await process.end(quota.graceSeconds * 1000)
      await guarding.catch(() => undefined) // thrown above, if it was the guard that ended it
    }
    const { exitCode, signal } = await process.exited
    if (exitCode === 0) return undefined
    const how = signal ? `was ended by ${signal}` : `ended with exit code ${exitCode}`
    return `accept's command ${how}${progress.lastLine ? `; its last line was "${progress.lastLine}"` : ''}`
  } catch (error) {
    if (run.signal.aborted || !(error instanceof TrainerError)) throw error
    return `accept's command could not be run: ${messageOf(error)}`
  } finally {
    over.abort()
    progress.close()
    await mendWork(workDir)
  }
}
