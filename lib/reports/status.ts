import { existsSync } from 'node:fs'
import { relative } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { Guarantee } from '../events.ts'
import { layout, stateDirOf } from '../layout.ts'
import { readManifest } from '../models/manifest.ts'
import { checkPublished, publishedFiles } from '../models.ts'
import { type JobName, jobNames, type Quota, type Quotas } from '../quotas.ts'
import { accountOf, capOf, freeSpace } from '../storage/capacity.ts'
import { measure } from '../storage/measure.ts'
import type { Entry } from '../storage/prunable.ts'
import { isTrainingRun, type RunHistory, readRuns } from './history.ts'
import type { JobHistory } from './job-history.ts'

/**
 * How the trainer and its jobs stand, as `scripts/status.ts --json` prints it: sizes in bytes, times in ISO 8601, `null`
 * for what is not known.
 */
export type Status = {
  modelsDir: string
  freeBytes: number | null
  /** The run that holds the lock. */
  running: {
    /** Not known to another user. */
    pid: number | null
    startedAt: string | null
    job: JobName | null
    /** `null` if it is not in the journal: it only begins, or is no run but moves a volume. */
    step: RunStage | null
  } | null
  /** The last run before that which was to train; without an exit code if it was killed or lost its power. */
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
  /** Valid published models, by their names in the job's folder. */
  models: string[]
  /** Would a run leave this job alone? */
  valid: boolean | null
  /** Why it is valid or not, or why that is not known. */
  reason: string
  trainedAt: string | null
  /** Files in use that no training here has made, by their names in the job's folder. */
  adopted: string[]
  usedBytes: number | null
  /** The quota, or what a smaller filesystem of its own holds. */
  limitBytes: number
  /** Files `*.checkpoint`, and what else the job's `prune` globs match. */
  checkpoints: { count: number; bytes: number } | null
  /** Of these and of the temporary files: what may be pruned. */
  prunable: { count: number; bytes: number } | null
  /** What bounds its bytes now; in a sandbox if the last training was in one. */
  guarantee: Guarantee | null
  /** What became of the last training; `at` is when it ended. */
  lastResult: {
    outcome: 'done' | 'failed' | 'interrupted' | 'cut off' | 'running'
    at: string | null
    reason: string
  } | null
}

/** The journal's size bounds it before this does. */
const KEPT_RUNS = 1000

/**
 * Read how everything stands. Nothing is written and the lock is not touched, so it may be asked at any time.
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
    running: holder
      ? { pid: holder.pid ?? null, startedAt: isoOf(current?.startedAt), ...stageOf(current) }
      : null,
    lastRun: last
      ? { startedAt: isoOf(last.startedAt), exitCode: last.exitCode ?? null, message: last.message ?? null }
      : null,
    jobs,
  }
}

/** How a job stands by its folder alone. */
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
      models: models.map(path => relative(dir, path)),
      valid: !missing,
      reason,
      trainedAt: adopted.length ? null : isoOf(readManifest(dir)?.metadata.trained_at),
      adopted,
      ...(await measureJob(dir, quota, limitBytes, sandbox)),
    }
  } catch (error) {
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
  const { usedBytes, prunable } = await measure(dir, { prune: quota.prune, keep })
  const { prunable: matching } = await measure(dir, { prune: quota.prune })
  const capBytes = capOf(dir, quotaBytes)
  return {
    usedBytes: capBytes === undefined ? usedBytes : accountOf(dir).usedBytes,
    limitBytes: capBytes ?? quotaBytes,
    checkpoints: sumUp(matching.filter(({ rule }) => rule !== '*.tmp')),
    prunable: sumUp(prunable),
    guarantee: `${capBytes === undefined ? 'watch' : 'kernel'}${sandbox}`,
  }
}

function sumUp(entries: Entry[]): { count: number; bytes: number } {
  return { count: entries.length, bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0) }
}

function jobIn({ jobs }: RunHistory, name: JobName): JobHistory | undefined {
  return jobs.find(({ job }) => job === name)
}

/** The step that a run is at, from the last that it has written down. */
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
