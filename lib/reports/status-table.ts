import { SYSTEM_MODELS_DIR } from '../settings/folders.ts'
import { nameCommand } from '../system/start-command.ts'
import { clip, escapeText, formatBar, formatBytes, formatSeconds, formatTold, wrap } from '../text.ts'
import { describeGenerations } from './generation-list.ts'
import type { JobStatus, Status } from './status.ts'

/** Text is broken at this width, and a job takes two lines. */
const WIDTH = 80
/** From this width on a job takes one line. */
const WIDE = 110
/** The columns of a job, in the order of a wide table. */
const heads = {
  job: 'job',
  state: 'state',
  model: 'model',
  trained: 'trained (UTC)',
  usage: 'usage of quota',
  checkpoints: 'checkpoints',
  prunable: 'prunable',
  guarantee: 'guarantee',
  last: 'last',
}
type Column = keyof typeof heads

/** The lines of a job in a narrow table; the columns that stand below each other share a width. */
const narrow: (Column | undefined)[][] = [
  ['job', 'model', 'trained', 'guarantee', 'last'],
  ['state', 'usage', 'checkpoints', 'prunable', undefined],
]
const wide: Column[][] = [Object.keys(heads) as Column[]]

/** How a table is drawn: its lines of a job, the spaces between two columns, and whether usage has a bar. */
type Style = { lines: (Column | undefined)[][]; gap: number; hasBars: boolean }
const roomy: Style = { lines: wide, gap: 2, hasBars: true }
/** Jobs of 3 GiB in their longest states, with less than a hundred checkpoints, take 110 columns so. */
const dense: Style = { lines: wide, gap: 1, hasBars: false }
const folded: Style = { lines: narrow, gap: 2, hasBars: true }

/** The name of a column where it stands below another. */
const narrowHeads: Partial<Record<Column, string>> = { state: '', last: 'last result' }

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
 * Draw the status for a person: what runs, two lines a job within 80 columns or one from 110 on, and below them the faults
 * of the jobs.
 *
 * @param columns the width of the terminal; a file has none, and gets 80
 * @param now the time to count durations to, in milliseconds
 */
export function drawStatus(status: Status, isColoured: boolean, columns = WIDTH, now = Date.now()): string {
  const { modelsDir, jobs } = status
  const heading = [
    `${escapeText(modelsDir)}, ${describeFolder(status)}`,
    describeRun(status, now),
    ...describeProgress(status),
  ]
  const notes = jobs.flatMap(job => describeFaults(job, status.running !== null))
  const inLines = (texts: string[]) => texts.map(text => wrap(text, columns >= WIDE ? columns : WIDTH))
  const lines = [...inLines(heading), '', ...drawTable(jobs, isColoured, columns)]
  const generations = jobs.flatMap(it => describeGenerations(it.job, it.generations ?? [], now))
  if (generations.length) lines.push('', ...inLines(generations))
  return [...lines, ...(notes.length ? ['', ...inLines(notes)] : [])].join('\n')
}

/** What keeps runs from working in the models folder, by where that stands: on its disk, or where none is yet. */
const OBSTACLES = {
  'read-only': {
    there: 'which is read-only: no run can work there; mount it writable',
    missing:
      'and it cannot be made: the filesystem is read-only, on which the service ends with 238/STATE_DIRECTORY; mount it writable',
    noRun: 'it is read-only',
  },
  unmounted: {
    there: 'which is another disk: nothing is mounted where /etc/fstab has one; mount that: mount -a',
    missing: 'and nothing is mounted where /etc/fstab has its disk; mount that: mount -a',
    noRun: 'its disk is not mounted',
  },
  full: { there: undefined, missing: undefined, noRun: 'the disk is full, free some space' },
} as const

function describeFolder({ freeBytes, obstacle }: Status): string {
  const { there, missing } = obstacle ? OBSTACLES[obstacle] : {}
  if (freeBytes === null) return missing ? `not there, ${missing}` : 'not there yet'
  const free = `${formatBytes(freeBytes)} free on the disk`
  return there ? `${free}, ${there}` : free
}

function describeRun({ running, lastRun, obstacle, modelsDir }: Status, now: number): string {
  if (running) {
    const { pid, job, stepSince, elsewhere } = running
    const step = running.step ?? 'no training: a run that begins or ends, or a volume being moved'
    const since = stepSince
      ? `, since ${formatMoment(stepSince)} (${formatSeconds(Math.max(0, now - Date.parse(stepSince)) / 1000)})`
      : ''
    return `running: ${job ? `${job}, ` : ''}${step}${since}${pid ? `, pid ${pid}` : ''}${elsewhere ? describeElsewhere(elsewhere) : ''}`
  }
  if (!lastRun && obstacle)
    return `not running; no training is recorded here, and none could be: ${OBSTACLES[obstacle].noRun}`
  if (!lastRun) {
    const service = modelsDir === SYSTEM_MODELS_DIR ? '' : `; the service's is ${SYSTEM_MODELS_DIR}`
    return `not running; no training is recorded here. If there was one, name its folder with --models-dir${service}`
  }
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
  return `, on ${host === null ? 'another machine' : escapeText(host)}${job}, last heard of at ${formatMoment(lastHeardAt)}`
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

/** A model's name that is shorter tells nothing. */
const LEAST_MODEL = 9

function drawTable(jobs: JobStatus[], isColoured: boolean, columns: number): string[] {
  const inOneLine =
    columns >= WIDE ? (layOut(jobs, roomy, columns) ?? layOut(jobs, dense, columns)) : undefined
  const { rows, widths, gap } = inOneLine ?? layOut(jobs, folded, WIDTH)!
  return rows.map(row => {
    const cells = row.map(([text, tone], place) => {
      const cell = clip(text, widths[place]!).padEnd(widths[place]!)
      return isColoured && tone !== 'plain' ? `${colours[tone]}${cell}\x1b[0m` : cell
    })
    return cells.join(' '.repeat(gap)).trimEnd()
  })
}

/**
 * Lay the jobs out in a table of at most `most` columns, with names of models cut; undefined if that is too little for one
 * line a job.
 */
function layOut(
  jobs: JobStatus[],
  { lines, gap, hasBars }: Style,
  most: number,
): { rows: Cell[][]; widths: number[]; gap: number } | undefined {
  const names = lines === narrow ? { ...heads, ...narrowHeads } : heads
  const headed = Object.entries(names).map(([column, head]): [string, Cell] => [column, [head, 'plain']])
  const records = [
    Object.fromEntries(headed) as Record<Column, Cell>,
    ...jobs.map(job => cellsOf(job, hasBars)),
  ]
  const rows = records.flatMap(cells =>
    lines.map(line => line.map((column): Cell => (column ? cells[column] : ['', 'plain']))),
  )
  const widths = lines[0]!.map((_, place) => Math.max(...rows.map(row => row[place]?.[0].length ?? 0)))
  const excess = widths.reduce((sum, width) => sum + width + gap, -gap) - most
  const models = lines[0]!.indexOf('model')
  if (excess <= 0) return { rows, widths, gap }
  widths[models] = widths[models]! - excess
  return lines === narrow || widths[models]! >= LEAST_MODEL ? { rows, widths, gap } : undefined
}

function cellsOf(status: JobStatus, hasBars: boolean): Record<Column, Cell> {
  const {
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
  } = status
  const [first = '-', ...others] = models.map(escapeText)
  const outcome = lastResult?.outcome ?? '-'
  return {
    job: [job, 'plain'],
    state: valid ? ['valid', 'good'] : [valid === null ? 'unknown' : 'not valid', 'bad'],
    model: [others.length ? `${first} +${others.length}` : first, 'plain'],
    trained: [trainedAt ? `${trainedAt.slice(0, 10)} ${trainedAt.slice(11, 16)}` : '-', 'plain'],
    usage:
      usedBytes === null
        ? ['-', 'bad']
        : [drawUsage(usedBytes, limitBytes, hasBars), usedBytes > limitBytes ? 'bad' : 'plain'],
    checkpoints: [drawFiles(checkpoints), 'plain'],
    prunable: [drawFiles(prunable), 'plain'],
    guarantee: [guarantee ?? '-', 'plain'],
    last: [outcome, outcomeTones[outcome] ?? 'plain'],
  }
}

function drawFiles(files: JobStatus['prunable']): string {
  if (!files) return '-'
  return files.count ? `${files.count}, ${formatBytes(files.bytes)}` : 'none'
}

function drawUsage(usedBytes: number, limitBytes: number, hasBar: boolean): string {
  const used = formatBytes(usedBytes).replace(/ MiB$/, '')
  return `${hasBar ? `${formatBar(usedBytes, limitBytes, 4)} ` : ''}${used}/${formatBytes(limitBytes)}`
}

function formatMoment(iso: string | null): string {
  return iso === null ? 'an unknown time' : `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`
}
