import { accessSync, constants, existsSync } from 'node:fs'
import { relative } from 'node:path'
import { isErrno, TrainerError } from '../errors.ts'
import type { Guarantee } from '../events.ts'
import { publishedDirOf } from '../models/generations.ts'
import { readManifest } from '../models/manifest.ts'
import { checkPublished, publishedFiles, supersededFiles } from '../models.ts'
import { type JobName, jobNames, type Quota, type Quotas } from '../quotas.ts'
import { layout, stateDirOf } from '../settings/layout.ts'
import { accountOf, capOf, freeSpace } from '../storage/capacity.ts'
import type { Entry } from '../storage/entry.ts'
import { measure } from '../storage/measure.ts'
import { RANK } from '../storage/rank.ts'
import { storageError } from '../system/durable.ts'
import { nearestVisible } from '../system/plain-file.ts'
import { unmountedAbove } from '../system/unmounted.ts'
import { MIB } from '../text.ts'
import { type GenerationStatus, statusOfGenerations } from './generation-list.ts'
import { isTrainingRun, type RunHistory, readRuns } from './history.ts'
import type { JobHistory } from './job-history.ts'

/**
 * The status of the trainer and its jobs, as `scripts/status.ts --json` prints it: sizes in bytes, times in ISO 8601,
 * `null` where a value is unknown.
 */
export type Status = {
  modelsDir: string
  freeBytes: number | null
  /** The reason why nobody can write there, or should; where the folder is missing, why nobody can make it. */
  obstacle: 'read-only' | 'full' | 'unmounted' | null
  /** The run that holds the lock. */
  running: {
    /** `null` if the run is another user's, unless root asks; or another machine's, whose pids are not this one's. */
    pid: number | null
    /** The other machine, or its node on Slurm, as the run has written it down. */
    elsewhere: { host: string | null; slurmJob: string | null; lastHeardAt: string | null } | null
    startedAt: string | null
    /** Since when it does what `step` says. */
    stepSince: string | null
    job: JobName | null
    /** `null` if it is not in the journal: it has just begun, or is no run but moves a volume. */
    step: RunStage | null
    /** How far the training says it is: a share of 1, and the seconds left by its pace; `null` if it does not say. */
    progress: { share: number; secondsLeft: number | null } | null
  } | null
  /** The last training run before that one; it has no exit code if it was killed or lost power. */
  lastRun: { startedAt: string | null; exitCode: number | null; message: string | null } | null
  jobs: JobStatus[]
}

type RunStage =
  | 'day-1 check'
  | 'pruning'
  | 'between jobs'
  | 'waiting for a quiet machine'
  | 'pre-flight'
  | 'training'
  | 'post-flight'

export type JobStatus = {
  job: JobName
  /** Names of the valid published models in the job's folder. */
  models: string[]
  /** Would a run leave this job alone? */
  valid: boolean | null
  /** The reason why it is valid or not, or why that is unknown. */
  reason: string
  trainedAt: string | null
  /** Names of the files in the job's folder that are in use and that no training here made. */
  adopted: string[]
  /** The publications that are there, the newest first; `null` if that is unknown. */
  generations: GenerationStatus[] | null
  usedBytes: number | null
  /** The quota, or the size of a smaller filesystem of the job's own. */
  limitBytes: number
  /** Files `*.checkpoint`, and others that the job's `prune` globs match. */
  checkpoints: { count: number; bytes: number } | null
  /** The checkpoints and temporary files that may be pruned. */
  prunable: { count: number; bytes: number } | null
  /** The bound of its bytes now. `+sandbox` tells that the last training was in one. */
  guarantee: Guarantee | null
  /** The result of the last training, and the time of its end. */
  lastResult: {
    outcome: 'done' | 'refused' | 'failed' | 'interrupted' | 'cut off' | 'running'
    at: string | null
    reason: string
  } | null
}

/** More runs than the journal has room for. */
const KEPT_RUNS = 1000

/**
 * Read the status. Writes nothing and does not touch the lock: it may be read at any time.
 *
 * @throws {TrainerError} `storage` if this user cannot read the journal or look at the lock
 */
export async function readStatus(
  modelsDir: string,
  quotas: Quotas,
  names: readonly JobName[] = jobNames,
): Promise<Status> {
  const { runs, holder } = readRuns(stateDirOf(modelsDir), KEPT_RUNS)
  const current = runs.find(({ isRunning }) => isRunning)
  const trainings = runs.filter(isTrainingRun)
  const last = trainings.findLast(({ isRunning }) => !isRunning)
  const jobs: JobStatus[] = []
  for (const job of names) {
    const lastGuarantee = trainings.flatMap(run => jobIn(run, job)?.guarantee ?? []).at(-1)
    const sandbox = lastGuarantee?.endsWith('+sandbox') ? '+sandbox' : ''
    const present = await inspectJob(job, layout(modelsDir, job).jobDir, quotas.jobs[job], sandbox)
    jobs.push({ ...present, lastResult: lastResultOf(job, trainings) })
  }
  return {
    modelsDir,
    freeBytes: existsSync(modelsDir) ? freeSpace(modelsDir) : null,
    obstacle: obstacleTo(modelsDir),
    running: holder
      ? {
          pid: holder.pid ?? null,
          elsewhere: holder.isElsewhere
            ? {
                host: current?.host ?? holder.host ?? null,
                slurmJob: holder.slurmJob ?? null,
                lastHeardAt: current ? isoOf(Date.parse(current.startedAt) + current.durationMs) : null,
              }
            : null,
          startedAt: isoOf(current?.startedAt),
          stepSince: isoOf(current?.stageSince),
          ...stageOf(current),
          progress: progressOf(current),
        }
      : null,
    lastRun: last
      ? { startedAt: isoOf(last.startedAt), exitCode: last.exitCode ?? null, message: last.message ?? null }
      : null,
    jobs,
  }
}

/** Less is nothing to an operator: not even the journal of a run finds room. */
const FULL_BELOW_BYTES = MIB

function obstacleTo(modelsDir: string): Status['obstacle'] {
  if (unmountedAbove(modelsDir) !== undefined) return 'unmounted'
  const place = nearestVisible(modelsDir)
  try {
    accessSync(place, constants.W_OK)
  } catch (error) {
    if (isErrno(error, 'EROFS')) return 'read-only'
  }
  return freeSpace(place) < FULL_BELOW_BYTES ? 'full' : null
}

/** The status of a job that its folder alone tells. */
type JobInspection = Omit<JobStatus, 'lastResult'>
type SandboxSuffix = '+sandbox' | ''

async function inspectJob(
  job: JobName,
  dir: string,
  quota: Quota,
  sandbox: SandboxSuffix,
): Promise<JobInspection> {
  const limitBytes = quota.quotaBytes
  const unknown = {
    job,
    models: [],
    valid: null,
    trainedAt: null,
    adopted: [],
    generations: null,
    usedBytes: null,
    limitBytes,
    checkpoints: null,
    prunable: null,
    guarantee: null,
  }
  try {
    const { models, missing, reason, adopted } = await checkPublished(dir, quota.models)
    return {
      job,
      models: models.map(path =>
        relative(path.startsWith(`${publishedDirOf(dir)}/`) ? publishedDirOf(dir) : dir, path),
      ),
      valid: !missing,
      reason,
      trainedAt: adopted.length ? null : isoOf(readManifest(publishedDirOf(dir))?.metadata.trained_at),
      adopted,
      generations: statusOfGenerations(dir),
      ...(await measureJob(dir, quota, limitBytes, sandbox)),
    }
  } catch (cause) {
    const error = storageError(`Cannot look into ${dir}`, cause)
    if (error instanceof TrainerError) return { ...unknown, reason: error.message }
    throw error
  }
}

async function measureJob(
  dir: string,
  quota: Quota,
  quotaBytes: number,
  sandbox: SandboxSuffix,
): Promise<Pick<JobStatus, 'usedBytes' | 'limitBytes' | 'checkpoints' | 'prunable' | 'guarantee'>> {
  const none = sumUp([])
  if (!existsSync(dir)) {
    return { usedBytes: 0, limitBytes: quotaBytes, checkpoints: none, prunable: none, guarantee: null }
  }
  const keep = await publishedFiles(dir, quota.models)
  const { usedBytes, prunable } = await measure(dir, {
    ...quota.globs,
    superseded: supersededFiles(dir),
    keep,
  })
  const { prunable: matching } = await measure(dir, quota.globs)
  const capBytes = capOf(dir, quotaBytes)
  return {
    usedBytes: capBytes === undefined ? usedBytes : accountOf(dir).usedBytes,
    limitBytes: capBytes ?? quotaBytes,
    checkpoints: sumUpSets(matching.filter(({ rank }) => rank === RANK.checkpoint)),
    prunable: sumUp(prunable),
    guarantee: `${capBytes === undefined ? 'watch' : 'kernel'}${sandbox}`,
  }
}

function sumUp(entries: Entry[]): { count: number; bytes: number } {
  return { count: entries.length, bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0) }
}

/** Files that belong together are one checkpoint. */
function sumUpSets(entries: Entry[]): { count: number; bytes: number } {
  return { ...sumUp(entries), count: new Set(entries.map(({ set }) => set)).size }
}

function jobIn({ jobs }: RunHistory, name: JobName): JobHistory | undefined {
  return jobs.find(({ job }) => job === name)
}

/** Return the stage of a run, by its last event. */
function stageOf(run: RunHistory | undefined): { job: JobName | null; step: RunStage | null } {
  if (!run) return { job: null, step: null }
  if (run.waitsBefore) return { job: run.waitsBefore, step: 'waiting for a quiet machine' }
  const last = run.jobs.at(-1)
  if (!last) return { job: null, step: 'day-1 check' }
  if (last.outcome !== 'unfinished') return { job: null, step: 'between jobs' }
  const { job, training } = last
  if (!isTrainingRun(run)) return { job, step: 'pruning' }
  if (!training) return { job, step: 'pre-flight' }
  return { job, step: training.exit ? 'post-flight' : 'training' }
}

/** The progress of the training of a run that goes on, brought up to now. */
function progressOf(run: RunHistory | undefined): NonNullable<Status['running']>['progress'] {
  const training = run && stageOf(run).step === 'training' ? run.jobs.at(-1)?.training : undefined
  if (!training?.told) return null
  const { share, secondsLeft, at } = training.told
  const elapsedSeconds = Math.max(0, Date.now() - Date.parse(at)) / 1000
  return {
    share,
    secondsLeft: secondsLeft === undefined ? null : Math.max(0, Math.round(secondsLeft - elapsedSeconds)),
  }
}

function lastResultOf(name: JobName, runs: RunHistory[]): JobStatus['lastResult'] {
  for (const run of runs.toReversed()) {
    const job = jobIn(run, name)
    if (!job || job.outcome === 'skipped') continue
    const at = isoOf(Date.parse(run.startedAt) + job.endMs)
    const unfinished = run.isRunning ? 'running' : 'cut off'
    return { outcome: job.outcome === 'unfinished' ? unfinished : job.outcome, at, reason: job.reason }
  }
  return null
}

function isoOf(time: unknown): string | null {
  const date = new Date(typeof time === 'number' || typeof time === 'string' ? time : Number.NaN)
  return Number.isNaN(date.getTime()) ? null : date.toISOString()
}
