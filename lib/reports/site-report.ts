import { messageOf, TrainerError } from '../errors.ts'
import { publishedDirOf } from '../models/generations.ts'
import { readManifest } from '../models/manifest.ts'
import { metricsOf } from '../models/trainer-metadata.ts'
import { checkPublished } from '../models.ts'
import { type JobName, jobNames } from '../quotas.ts'
import { type JobEnd, readJobEnd } from '../run/job-record.ts'
import { layout, stateDirOf } from '../settings/layout.ts'
import { readQuotas } from '../settings/quotas-file.ts'
import { storageError } from '../system/durable.ts'
import { isTrainingRun, type RunHistory, readRuns } from './history.ts'

/** The last run that was to train is seldom further back. */
const PAST_RUNS = 5

/** A site of a fleet: a models folder with quotas of its own. */
export type SitePlace = { name: string; modelsDir: string; quotasFile: string }

/** One job of a site, by its folder alone. */
export type SiteModel = {
  job: JobName
  valid: boolean
  /** Why it is valid or not. */
  reason: string
  /** In ISO 8601; `null` if it was not trained here. */
  trainedAt: string | null
  metrics: Record<string, number>
}

/** How a site stands: its models, and its last runs, the oldest first. */
export type SiteReport = {
  site: string
  modelsDir: string
  models: SiteModel[]
  runs: RunHistory[]
  /** The runs shown, and the ones before them that may be needed to find the last that was to train. */
  past: RunHistory[]
  /** How its last Slurm job came out, as far as somebody has judged it. */
  jobEnd: JobEnd | undefined
  /** Why nothing is known of it. */
  fault: string | undefined
}

/**
 * Look at a site; nothing is measured, so that a thousand of them are looked at in seconds. A site that cannot be read has
 * a fault, and keeps no other from being shown.
 *
 * @param keep how many of its last runs
 */
export async function readSite(
  { name, modelsDir, quotasFile }: SitePlace,
  keep: number,
): Promise<SiteReport> {
  const report: SiteReport = {
    site: name,
    modelsDir,
    models: [],
    runs: [],
    past: [],
    jobEnd: undefined,
    fault: undefined,
  }
  try {
    report.jobEnd = readJobEnd(stateDirOf(modelsDir))
    report.past = readRuns(stateDirOf(modelsDir), Math.max(keep, PAST_RUNS)).runs
    report.runs = report.past.slice(-keep)
    const { jobs } = readQuotas(quotasFile)
    for (const job of jobNames)
      report.models.push(await readModel(job, layout(modelsDir, job).jobDir, jobs[job].models))
  } catch (cause) {
    const error = storageError(`Cannot look into ${modelsDir}`, cause)
    if (!(error instanceof TrainerError)) throw error
    report.fault = messageOf(error)
  }
  return report
}

async function readModel(job: JobName, jobDir: string, globs: string[]): Promise<SiteModel> {
  const { missing, reason, adopted } = await checkPublished(jobDir, globs)
  const metadata: Record<string, unknown> = readManifest(publishedDirOf(jobDir))?.metadata ?? {}
  const trainedAt = Date.parse(String(metadata.trained_at))
  return {
    job,
    valid: !missing,
    reason,
    trainedAt: adopted.length || Number.isNaN(trainedAt) ? null : new Date(trainedAt).toISOString(),
    metrics: metricsOf(metadata),
  }
}

/** The last run that was to train and is over. */
export function lastTrainingRun({ past }: SiteReport): RunHistory | undefined {
  return past.findLast(run => isTrainingRun(run) && !run.isRunning)
}

/** How a site's last Slurm job came out, where its journal does not tell the same or something newer. */
export function untoldEnd(report: SiteReport): JobEnd | undefined {
  const { jobEnd, past } = report
  const last = past.findLast(isTrainingRun)
  if (!jobEnd || !last) return jobEnd
  const isItsRun = last.slurmJob !== undefined && last.slurmJob === jobEnd.slurmJob
  const isTold = isItsRun && last.exitCode === jobEnd.exitCode
  const lastMs = Date.parse(last.startedAt) + last.durationMs
  return isTold || lastMs > Date.parse(jobEnd.at) ? undefined : jobEnd
}

/** How a site stands, by its folder alone. Every count of failed sites is a count of this. */
export function standOf(report: SiteReport): 'running' | 'done' | 'failed' | 'never' {
  if (report.fault !== undefined) return 'failed'
  const untold = untoldEnd(report)
  if (!untold && report.past.at(-1)?.isRunning) return 'running'
  const end = untold ?? lastTrainingRun(report)
  if (!end) return 'never'
  return end.exitCode === 0 ? 'done' : 'failed'
}

/** How old something is that was made at a time in ISO 8601: `5 min`, `7 h`, `3 d`. */
export function formatAge(iso: string, now: number): string {
  const minutes = Math.max(0, now - Date.parse(iso)) / 60_000
  if (minutes < 60) return `${Math.floor(minutes)} min`
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 60 / 24)} d`
}
