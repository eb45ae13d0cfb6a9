import { nameCommand } from '../system/start-command.ts'
import { escapeText, formatBar, formatBytes, formatSeconds, formatTold, wrap } from '../text.ts'
import { describeGenerations } from './generation-list.ts'
import type { JobStatus, Status } from './status.ts'

const WIDTH = 80
const GAP = '  '
/** The heads of the two lines of a job. */
const heads = [
  ['job', 'model', 'trained (UTC)', 'guarantee', 'last'],
  ['', 'usage of quota', 'checkpoints', 'prunable', 'result'],
]
const MODEL_COLUMN = 1

type CellTone = 'good' | 'bad' | 'plain'
type Cell = [text: string, tone: CellTone]

const colours: Record<CellTone, string> = { good: '\x1b[32m', bad: '\x1b[31m', plain: '' }
const outcomeTones: Record<string, CellTone> = {
  done: 'good',
  refused: 'bad',
  failed: 'bad',
  interrupted: 'bad',
  'cut off': 'bad',
}

/**
 * Draw the status for a person, 80 columns wide: what runs, two lines a job, and below them the faults of the jobs.
 *
 * @param now the time to count a run's duration to, in milliseconds
 */
export function drawStatus(status: Status, isColoured: boolean, now = Date.now()): string {
  const { modelsDir, freeBytes, jobs } = status
  const free = freeBytes === null ? 'not there yet' : `${formatBytes(freeBytes)} free on the disk`
  const heading = [`${escapeText(modelsDir)}, ${free}`, describeRun(status, now), ...describeProgress(status)]
  const notes = jobs.flatMap(job => describeFaults(job, status.running !== null))
  const inLines = (texts: string[]) => texts.map(text => wrap(text, WIDTH))
  const lines = [...inLines(heading), '', ...drawTable(jobs, isColoured)]
  const generations = jobs.flatMap(it => describeGenerations(it.job, it.generations ?? [], now))
  if (generations.length) lines.push('', ...inLines(generations))
  return [...lines, ...(notes.length ? ['', ...inLines(notes)] : [])].join('\n')
}

function describeRun({ running, lastRun }: Status, now: number): string {
  if (running) {
    const { pid, job, startedAt, elsewhere } = running
    const step = running.step ?? 'no training: a run that begins or ends, or a volume being moved'
    const since = startedAt
      ? `, since ${formatMoment(startedAt)} (${formatSeconds(Math.max(0, now - Date.parse(startedAt)) / 1000)})`
      : ''
    return `running: ${job ? `${job}, ` : ''}${step}${since}${pid ? `, pid ${pid}` : ''}${elsewhere ? describeElsewhere(elsewhere) : ''}`
  }
  if (!lastRun)
    return 'not running; no training is recorded here. If there was one, name its folder with --models-dir'
  const { startedAt, exitCode, message } = lastRun
  const end =
    exitCode === null
      ? 'was killed, lost power or could not record its end on a full disk'
      : `ended with exit code ${exitCode}`
  return `not running; the last training run, of ${formatMoment(startedAt)}, ${end}${message ? `: ${escapeText(message)}` : ''}`
}

function describeProgress({ running }: Status): string[] {
  if (!running?.progress) return []
  const { progress } = running
  return [`it says: ${formatBar(progress.share, 1)} ${formatTold(progress)}`]
}

/** A run on another machine cannot be seen, only heard of. */
function describeElsewhere({ host, slurmJob, lastHeardAt }: NonNullable<Elsewhere>): string {
  const job = slurmJob ? `, Slurm job ${slurmJob}` : ''
  return `, on ${host ?? 'another machine'}${job}, last heard of at ${formatMoment(lastHeardAt)}`
}

type Elsewhere = NonNullable<Status['running']>['elsewhere']

function describeFaults(status: JobStatus, isRunning: boolean): string[] {
  const { job, valid, reason, adopted, lastResult } = status
  const isAsTrained = valid && !adopted.length
  const faults = isAsTrained ? [] : [`${job}${valid === false ? ' is not valid' : ''}: ${escapeText(reason)}`]
  faults.push(...describeExcess(status, isRunning))
  if (lastResult?.outcome === 'failed' || lastResult?.outcome === 'refused') {
    faults.push(
      `${job} ${lastResult.outcome === 'failed' ? 'failed' : 'was not accepted'} at ${formatMoment(lastResult.at)}: ${escapeText(lastResult.reason)}`,
    )
  }
  return faults
}

/** Describe usage above the quota, with the remedy. While a run holds the lock, nobody else can prune. */
function describeExcess({ job, usedBytes, limitBytes, prunable }: JobStatus, isRunning: boolean): string[] {
  if (usedBytes === null || usedBytes <= limitBytes) return []
  const excess = `${job} uses more than its quota`
  if (usedBytes - (prunable?.bytes ?? 0) > limitBytes)
    return [`${excess}, and pruning cannot change that: raise its maxDiskMb or remove what is not needed`]
  return [
    `${excess}; the next run prunes it${isRunning ? '' : `, or now: ${nameCommand('scripts/prune.ts', job)}`}`,
  ]
}

function drawTable(jobs: JobStatus[], isColoured: boolean): string[] {
  const rows = [...heads.map(row => row.map((head): Cell => [head, 'plain'])), ...jobs.flatMap(rowsOf)]
  const widths = heads[0]!.map((_, column) => Math.max(...rows.map(row => row[column]![0].length)))
  const excess = widths.reduce((sum, width) => sum + width + GAP.length, -GAP.length) - WIDTH
  if (excess > 0) widths[MODEL_COLUMN] = widths[MODEL_COLUMN]! - excess
  return rows.map(row => {
    const cells = row.map(([text, tone], column) => {
      const cell = clip(text, widths[column]!).padEnd(widths[column]!)
      return isColoured && tone !== 'plain' ? `${colours[tone]}${cell}\x1b[0m` : cell
    })
    return cells.join(GAP).trimEnd()
  })
}

function rowsOf({
  job,
  models,
  valid,
  trainedAt,
  usedBytes,
  limitBytes,
  checkpoints,
  prunable,
  guarantee,
  lastResult,
}: JobStatus): Cell[][] {
  const [first = '-', ...others] = models.map(escapeText)
  const outcome = lastResult?.outcome ?? '-'
  return [
    [
      [job, 'plain'],
      [others.length ? `${first} +${others.length}` : first, 'plain'],
      [trainedAt ? `${trainedAt.slice(0, 10)} ${trainedAt.slice(11, 16)}` : '-', 'plain'],
      [guarantee ?? '-', 'plain'],
      [outcome, outcomeTones[outcome] ?? 'plain'],
    ],
    [
      valid ? ['valid', 'good'] : [valid === null ? 'unknown' : 'not valid', 'bad'],
      usedBytes === null
        ? ['-', 'bad']
        : [drawUsage(usedBytes, limitBytes), usedBytes > limitBytes ? 'bad' : 'plain'],
      [drawFiles(checkpoints), 'plain'],
      [drawFiles(prunable), 'plain'],
      ['', 'plain'],
    ],
  ]
}

function drawFiles(files: JobStatus['prunable']): string {
  if (!files) return '-'
  return files.count ? `${files.count}, ${formatBytes(files.bytes)}` : 'none'
}

function drawUsage(usedBytes: number, limitBytes: number): string {
  const used = formatBytes(usedBytes).replace(/ MiB$/, '')
  return `${formatBar(usedBytes, limitBytes, 4)} ${used}/${formatBytes(limitBytes)}`
}

function clip(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, width - 1)}…` : text
}

function formatMoment(iso: string | null): string {
  return iso === null ? 'an unknown time' : `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`
}
