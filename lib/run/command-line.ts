import { join, resolve } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { JobName } from '../quotas.ts'
import { type Option, type Program, parseDuration, readOptions } from '../settings/options.ts'
import { chooseJobs, placeOptions } from '../settings.ts'
import { root } from '../system/start-command.ts'

/** What a run was asked to do. */
export type Command = {
  jobs: JobName[]
  /** Does it train what it finds missing? Pruning and looking do not. */
  trains: boolean
  quotasFile: string
  modelsDir: string | undefined
  /** A models folder that is missing is refused, not made. */
  needsModelsDir: boolean
  /** Of one job's own script: the limit of this run instead of the quota file's, in MiB. */
  maxDiskMb: number | undefined
  retrain: boolean
  dryRun: boolean
  json: boolean
  /** Stay, and retrain at this interval. */
  everyMs: number | undefined
  /** Wait this long at most for a quiet machine between jobs; without it do not wait. */
  maxWaitMs: number | undefined
}

const runOptions = {
  'dry-run': { type: 'boolean', help: 'say what would be done; change nothing' },
  json: { type: 'boolean', help: 'one JSON object a line, nothing else, on stdout' },
} as const satisfies Record<string, Option>

const retrainOption = {
  retrain: { type: 'boolean', help: 'train although the published models are valid' },
} as const satisfies Record<string, Option>

const maxDiskOption = {
  'max-disk-mb': { type: 'string', value: 'N', help: 'the limit of this run in MiB, instead of the quota' },
} as const satisfies Record<string, Option>

const queueOptions = {
  every: { type: 'string', value: 'TIME', help: 'stay, and retrain at this interval, such as 24h' },
  'max-wait': {
    type: 'string',
    value: 'TIME',
    help: 'longest wait for a quiet machine between jobs',
  },
} as const satisfies Record<string, Option>

const exitCodes = `2 quota violated, 3 disk full or not
writable, 64 wrong usage, 75 another run holds the lock, 78 quotas.json
invalid, 129 SIGHUP, 130 SIGINT, 143 SIGTERM`

/** A program that makes a run: the whole queue, one job alone, or neither: it trains nothing. */
export type Runner = {
  name: string
  summary: string
  job?: JobName
  isQueue?: true
  /** It has nothing to do in a new models folder. */
  needsModelsDir?: true
}

type AllOptions = typeof placeOptions &
  typeof retrainOption &
  typeof runOptions &
  typeof maxDiskOption &
  typeof queueOptions

/**
 * Read the command line of a run.
 *
 * @returns the command, or the text that was asked for with `--help` or `--version`
 * @throws {TrainerError} `usage`
 */
export function parseCommand(args: string[], runner: Runner): Command | string {
  const { name, summary, job, isQueue, needsModelsDir = false } = runner
  const trains = job !== undefined || isQueue === true
  const all = {
    ...placeOptions,
    ...(trains && retrainOption),
    ...runOptions,
    ...(job && maxDiskOption),
    ...(isQueue && queueOptions),
  } as AllOptions
  const example = `${job ? '' : 'agent '}${trains ? '--retrain' : '--dry-run'} --models-dir /tmp/m`
  const notes = `Exit codes: 0 done, ${trains ? '1 training failed, ' : ''}${exitCodes}`
  const program: Program<typeof all> = { name, summary, options: all, example, notes }
  if (!job) program.positionals = '[core] [dpi] [agent]'
  const read = readOptions(args, program)
  if (typeof read === 'string') return read
  const { values, positionals } = read
  const everyMs = values.every === undefined ? undefined : parseDuration('--every', values.every)
  if (everyMs !== undefined && values['dry-run']) {
    throw new TrainerError('usage', 'Choose --every or --dry-run: what changes nothing needs no repetition')
  }
  const maxWait = values['max-wait'] ?? (everyMs && '10m')
  return {
    jobs: job ? [job] : chooseJobs(positionals),
    trains,
    quotasFile: resolve(values.quotas ?? join(root, 'quotas.json')),
    modelsDir: values['models-dir'],
    needsModelsDir,
    maxDiskMb: values['max-disk-mb'] === undefined ? undefined : wholeMb(values['max-disk-mb']),
    retrain: values.retrain ?? false,
    dryRun: values['dry-run'] ?? false,
    json: values.json ?? false,
    everyMs,
    maxWaitMs: maxWait ? parseDuration('--max-wait', maxWait) : undefined,
  }
}

function wholeMb(value: string): number {
  if (/^[1-9]\d{0,9}$/.test(value)) return Number(value)
  throw new TrainerError('usage', `--max-disk-mb is "${value}", expected a whole number of at least 1`)
}
