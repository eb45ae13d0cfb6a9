import { escapeText, wrap } from '../text.ts'
import type { RunHistory } from './history.ts'
import { formatAge, lastTrainingRun, type SiteModel, type SiteReport } from './site-report.ts'

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
}

/** A site as `scripts/fleet.ts --status --json` prints it. */
export type SiteStatus = {
  site: string
  /** The activity of its last job, or how its last run ended. */
  state: 'waiting' | 'running' | 'held' | 'done' | 'failed' | 'never' | 'unknown'
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
  models: SiteModel[]
  fault: string | null
}

/** A site's status, from what its folder and Slurm say. */
export function siteStatus(report: SiteReport, slurm: SlurmState): SiteStatus {
  const { site, modelsDir, models, fault } = report
  const last = lastTrainingRun(report)
  return {
    site,
    state: stateOf(slurm, last),
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
    models,
    fault: fault ?? null,
  }
}

function stateOf({ state }: SlurmState, last: RunHistory | undefined): SiteStatus['state'] {
  if (state !== 'gone' && state !== 'none') return state
  if (!last) return 'never'
  return last.exitCode === 0 ? 'done' : 'failed'
}

/** The sites as a table, a line each with the ages of its models; below it why one is not as it should be. */
export function drawFleet(sites: SiteStatus[], now = Date.now()): string {
  const rows = sites.map(status => [
    escapeText(status.site),
    status.state,
    status.node ?? status.lastRun?.host ?? '-',
    status.lastRun
      ? `${status.lastRun.exitCode ?? 'cut off'}, ${formatAge(status.lastRun.startedAt, now)}`
      : '-',
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

function describeModel(model: SiteModel | undefined, now: number): string {
  if (!model) return '-'
  if (!model.valid) return 'not valid'
  return model.trainedAt ? formatAge(model.trainedAt, now) : 'valid'
}

function describeFaults({ site, state, reason, fault, lastRun, models }: SiteStatus): string[] {
  const why =
    fault ??
    (reason && (state === 'waiting' || state === 'held') ? `is ${state}: ${reason}` : undefined) ??
    (lastRun && lastRun.exitCode !== 0 ? (lastRun.message ?? 'its last run was cut off') : undefined)
  const invalid = models
    .filter(({ valid }) => !valid)
    .map(({ job, reason }) => `${job} is not valid: ${reason}`)
  const faults = [...(why ? [why] : []), ...(state === 'never' ? [] : invalid)]
  return faults.map(it => escapeText(`${site}: ${it}`))
}

function clip(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, width - 1)}…` : text
}
