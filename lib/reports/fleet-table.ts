import type { JobName } from '../quotas.ts'
import { clip, escapeText, wrap } from '../text.ts'
import {
  formatAge,
  lastTrainingRun,
  type SiteModel,
  type SiteReport,
  standOf,
  untoldEnd,
} from './site-report.ts'

const WIDTH = 80
const GAP = '  '
const MAX_SITE_WIDTH = 24
const heads = ['site', 'state', 'node', 'last run', 'core', 'dpi', 'agent']

/** The state of a site's last job in Slurm; `gone` and `none` mean that Slurm has none. */
export type SlurmState = {
  jobId: number | undefined
  state: 'waiting' | 'running' | 'held' | 'gone' | 'unknown' | 'none'
  node: string | undefined
  /** Why it waits or is held. */
  reason: string | undefined
  /** How it came out, as far as can be told, where nobody has kept that; and since when. */
  outcome?: { exitCode: number; message: string; at: string } | undefined
}

/** A site as `scripts/fleet.ts --status --json` prints it. */
export type SiteStatus = {
  site: string
  /** The activity of its last job, or how its last run ended. */
  state: 'waiting' | 'running' | 'held' | 'done' | 'failed' | 'never' | 'unknown'
  /** The job that trains now. */
  training: JobName | null
  slurmJob: number | null
  node: string | null
  /** Why it waits or is held. */
  reason: string | null
  modelsDir: string
  lastRun: {
    startedAt: string
    host: string | null
    exitCode: number | null
    message: string | null
  } | null
  /** How its last Slurm job came out, where its runs do not tell that; `slurmJob` is null if Slurm has taken none. */
  lastJob: { slurmJob: number | null; exitCode: number; message: string; at: string } | null
  models: SiteModel[]
  fault: string | null
}

/** A site's status, from what its folder and Slurm say. */
export function siteStatus(found: SiteReport, slurm: SlurmState): SiteStatus {
  const report = withSlurm(found, slurm)
  const { site, modelsDir, models, fault } = report
  const last = lastTrainingRun(report)
  const untold = untoldEnd(report)
  const now = report.past.findLast(run => run.slurmJob === slurm.jobId && run.exitCode === undefined)
  const current = slurm.state === 'running' ? now?.jobs.at(-1) : undefined
  return {
    site,
    state: slurm.state === 'gone' || slurm.state === 'none' ? standOf(report) : slurm.state,
    training: current?.outcome === 'unfinished' ? current.job : null,
    slurmJob: slurm.jobId ?? null,
    node: slurm.node ?? null,
    reason: slurm.reason ?? null,
    modelsDir,
    lastRun: last
      ? {
          startedAt: last.startedAt,
          host: last.host ?? null,
          exitCode: last.exitCode ?? null,
          message: last.message ?? null,
        }
      : null,
    lastJob: untold
      ? {
          slurmJob: untold.slurmJob ?? null,
          exitCode: untold.exitCode,
          message: untold.message,
          at: untold.at,
        }
      : null,
    models,
    fault: fault ?? null,
  }
}

/** Slurm knows better than a folder whether its job goes on, and how it came out. */
function withSlurm(report: SiteReport, { jobId, state, outcome }: SlurmState): SiteReport {
  const jobEnd = outcome ? { ...outcome, slurmJob: jobId } : report.jobEnd
  const isOver = (slurmJob: number | undefined) => state === 'gone' && slurmJob === jobId
  const past = report.past.map(run => (isOver(run.slurmJob) ? { ...run, isRunning: false } : run))
  return { ...report, jobEnd, past }
}

/** The sites as a table, a line each with the ages of its models; below it why one is not as it should be. */
export function drawFleet(sites: SiteStatus[], now = Date.now()): string {
  const rows = sites.map(status => [
    escapeText(status.site),
    status.training ? `${status.state} ${status.training}` : status.state,
    escapeText(nodeOf(status) ?? '-'),
    describeLast(status, now),
    ...['core', 'dpi', 'agent'].map(job =>
      describeModel(
        status.models.find(it => it.job === job),
        now,
      ),
    ),
  ])
  const widths = heads.map((head, column) => Math.max(head.length, ...rows.map(row => row[column]!.length)))
  widths[0] = Math.min(widths[0]!, MAX_SITE_WIDTH)
  const lines = [heads, ...rows].map(row =>
    row
      .map((cell, column) => clip(cell, widths[column]!).padEnd(widths[column]!))
      .join(GAP)
      .trimEnd(),
  )
  const faults = sites.flatMap(describeFaults)
  return [...lines, ...(faults.length ? ['', ...faults.map(fault => wrap(fault, WIDTH))] : [])].join('\n')
}

/** The node of its job, or of its last run if that is over and nothing has come after it. */
function nodeOf({ state, node, lastRun, lastJob }: SiteStatus): string | undefined {
  const isPast = state === 'waiting' || state === 'held' || lastJob !== null
  return node ?? (isPast ? undefined : lastRun?.host) ?? undefined
}

function describeLast({ lastRun, lastJob }: SiteStatus, now: number): string {
  if (lastJob) return `exit code ${lastJob.exitCode}, ${formatAge(lastJob.at, now)} ago`
  if (!lastRun) return '-'
  const end = lastRun.exitCode === null ? 'cut off' : `exit code ${lastRun.exitCode}`
  return `${end}, ${formatAge(lastRun.startedAt, now)} ago`
}

function describeModel(model: SiteModel | undefined, now: number): string {
  if (!model) return '-'
  if (!model.valid) return 'not valid'
  return model.trainedAt ? formatAge(model.trainedAt, now) : 'valid'
}

function describeFaults(status: SiteStatus): string[] {
  const { site, state, fault, models } = status
  // It may be about to get what it lacks.
  const isOpen = state === 'running' || state === 'waiting'
  const why = fault ?? describeTrouble(status)
  const invalid = models
    .filter(({ valid }) => !valid)
    .map(({ job, reason }) => `${job} is not valid: ${reason}`)
  const faults = [...(why ? [why] : []), ...(isOpen || state === 'never' ? [] : invalid)]
  return faults.map(it => escapeText(`${site}: ${it}`))
}

/** Why a site waits or is held, or how its last job or run failed; of one that runs or waits that is past. */
function describeTrouble({ state, reason, lastRun, lastJob }: SiteStatus): string | undefined {
  if (state === 'waiting' || state === 'held') return reason ? `is ${state}: ${reason}` : undefined
  if (state === 'running') return undefined
  if (lastJob) return lastJob.exitCode === 0 ? undefined : lastJob.message
  return lastRun && lastRun.exitCode !== 0 ? (lastRun.message ?? 'its last run was cut off') : undefined
}
