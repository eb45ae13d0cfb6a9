import { resolve } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { JobName } from '../quotas.ts'
import { type Option, parseDuration, readOptions } from '../settings/options.ts'
import { chooseJobs, chooseOneJob, chooseQuotasFile, placeOptions } from '../settings/place.ts'
import { nameCommand } from '../system/start-command.ts'
import type { Output } from './output.ts'

/** The command line of a run, read. */
export type Command = {
  jobs: JobName[]
  /** Does it train what it finds missing? Pruning and looking do not. */
  trains: boolean
  quotasFile: string
  modelsDir: string | undefined
  /** A models folder that is missing is refused, not made. */
  needsModelsDir: boolean
  /** Replaces the quota in a run of a job's own script; MiB. */
  maxDiskMb: number | undefined
  /** Train in this folder of the machine's own, and publish in the models folder. */
  scratch: string | undefined
  retrain: boolean
  dryRun: boolean
  json: boolean
  /** The generation to go back to; undefined means the one before the current. */
  to: string | undefined
  /** Let trainings publish again after going back. */
  release: boolean
  /** Stay in the foreground, and retrain at this interval. */
  everyMs: number | undefined
  /** Wait at most this long for a quiet machine between jobs; undefined means not at all. */
  maxWaitMs: number | undefined
}

/** Every option that a run can take besides its place. */
const runOptions = {
  retrain: { type: 'boolean', help: 'train although the published models are valid' },
  'dry-run': { type: 'boolean', help: 'say what would be done; change nothing' },
  json: { type: 'boolean', help: 'one JSON object a line, nothing else, on stdout' },
  to: { type: 'string', value: 'N', help: 'the generation to make current (default: the one before)' },
  release: { type: 'boolean', help: 'let the next training be published after a rollback' },
  'max-disk-mb': { type: 'string', value: 'N', help: 'the limit of this run in MiB, instead of the quota' },
  scratch: { type: 'string', value: 'DIR', help: "train in this folder of the machine's own" },
  every: { type: 'string', value: 'TIME', help: 'stay, and retrain at this interval, such as 24h' },
  'max-wait': { type: 'string', value: 'TIME', help: 'longest wait for a quiet machine between jobs' },
} as const satisfies Record<string, Option>

type RunOption = keyof typeof runOptions

/** The options of a program that looks and trains nothing, and of one that trains. */
export const lookingOptions: RunOption[] = ['dry-run', 'json']
export const trainingOptions: RunOption[] = ['retrain', 'scratch', ...lookingOptions]

/** A program that makes a run. */
export type Runner = {
  name: string
  summary: string
  /** Its options; a program that takes `retrain` trains. */
  takes: RunOption[]
  /** Its one job; without it the arguments name jobs. */
  job?: JobName
  /** Refuse a missing models folder: it has nothing to do in a new one. */
  needsModelsDir?: true
  /** It is for one job, which has to be named. */
  needsOneJob?: true
  /** Makes what shows its run unless JSON is asked for; by default text lines do. */
  screen?: () => Output
}

const endings = `64 wrong usage,
75 another run holds the lock, 78 quotas.json invalid, 129 SIGHUP, 130 SIGINT,
143 SIGTERM`

/** Tell what a runner can end with, on lines that fit a screen. */
function exitCodesOf(trains: boolean, goesBack: boolean): string {
  if (trains)
    return `0 done, 1 training failed, 2 quota violated, 3 disk full or not\nwritable, 4 model not accepted, ${endings}`
  if (goesBack)
    return `0 done, 1 nothing to go back to, 3 disk full, not writable, or an\nown model in the way, ${endings}`
  return `0 done, 2 quota violated, 3 disk full or not writable,\n${endings}`
}

/**
 * Read the command line of a run.
 *
 * @returns the command, or the text that was asked for with `--help` or `--version`
 * @throws {TrainerError} `usage`
 */
export function parseCommand(args: string[], runner: Runner): Command | string {
  const { name, summary, takes, job, needsModelsDir = false, needsOneJob = false } = runner
  const trains = takes.includes('retrain')
  const taken = takes.map(option => [option, runOptions[option]])
  const options: typeof placeOptions & Partial<typeof runOptions> = {
    ...placeOptions,
    ...Object.fromEntries(taken),
  }
  const read = readOptions(args, {
    name,
    summary,
    options: options as typeof placeOptions & typeof runOptions,
    ...(!job && { positionals: needsOneJob ? 'JOB' : '[core] [dpi] [agent]' }),
    example: `${job ? '' : 'agent '}${trains ? '--retrain ' : needsOneJob ? '' : '--dry-run '}--models-dir /tmp/m`,
    notes: `Exit codes: ${exitCodesOf(trains, needsOneJob)}`,
  })
  if (typeof read === 'string') return read
  const { values, positionals } = read
  const everyMs = values.every === undefined ? undefined : parseDuration('--every', values.every)
  if (everyMs !== undefined && values['dry-run']) {
    throw new TrainerError('usage', 'Choose --every or --dry-run: what changes nothing needs no repetition')
  }
  const maxWait = values['max-wait'] ?? (everyMs && '10m')
  return {
    jobs: job
      ? [job]
      : needsOneJob
        ? [chooseOneJob(positionals, nameCommand(name, 'core'))]
        : chooseJobs(positionals),
    trains,
    quotasFile: chooseQuotasFile(values),
    modelsDir: values['models-dir'],
    needsModelsDir,
    maxDiskMb: values['max-disk-mb'] === undefined ? undefined : wholeMb(values['max-disk-mb']),
    scratch: values.scratch === undefined ? undefined : resolve(values.scratch),
    retrain: values.retrain ?? false,
    dryRun: values['dry-run'] ?? false,
    json: values.json ?? false,
    to: values.to,
    release: values.release ?? false,
    everyMs,
    maxWaitMs: maxWait ? parseDuration('--max-wait', maxWait) : undefined,
  }
}

function wholeMb(value: string): number {
  if (/^[1-9]\d{0,9}$/.test(value)) return Number(value)
  throw new TrainerError('usage', `--max-disk-mb is "${value}", expected a whole number of at least 1`)
}
