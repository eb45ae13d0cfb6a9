import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { messageOf, TrainerError } from './errors.ts'
import { type JobName, jobNames, MIB } from './quotas.ts'

const root = join(import.meta.dirname, '..')

/** What a run was asked to do. */
export type Command = {
  jobs: JobName[]
  quotasFile: string
  modelsDir: string | undefined
  /** Of one job's own script: the limit of this run instead of the quota file's, in MiB. */
  maxDiskMb: number | undefined
  retrain: boolean
  dryRun: boolean
  json: boolean
}

/** Who is asked: the task list, or one job's script. */
export type Program = { name: string; summary: string; job?: JobName }

const options = {
  'models-dir': { type: 'string' },
  quotas: { type: 'string' },
  retrain: { type: 'boolean' },
  'dry-run': { type: 'boolean' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const
const jobOptions = { ...options, 'max-disk-mb': { type: 'string' } } as const

/**
 * Read a command line.
 *
 * @returns the command, or the text that was asked for with `--help` or `--version`
 * @throws {TrainerError} `usage`
 */
export function parseCommand(argv: string[], program: Program): Command | string {
  const { values, positionals } = parse(argv, program)
  if (values.help) return helpText(program)
  if (values.version) return packageVersion()
  return {
    jobs: program.job ? [program.job] : chosenJobs(positionals),
    quotasFile: resolve(values.quotas ?? join(root, 'quotas.json')),
    modelsDir: values['models-dir'] === undefined ? undefined : resolve(folder(values['models-dir'])),
    maxDiskMb: values['max-disk-mb'] === undefined ? undefined : wholeMb(values['max-disk-mb']),
    retrain: values.retrain ?? false,
    dryRun: values['dry-run'] ?? false,
    json: values.json ?? false,
  }
}

/** The version in package.json. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}

type Values = { [name in keyof typeof jobOptions]?: name extends StringOption ? string : boolean }
type StringOption = 'models-dir' | 'quotas' | 'max-disk-mb'

function parse(args: string[], program: Program): { values: Values; positionals: string[] } {
  try {
    const allowed = program.job ? jobOptions : options
    return parseArgs({ args, options: allowed, allowPositionals: !program.job, strict: true })
  } catch (cause) {
    const [reason] = messageOf(cause).split('. ')
    throw new TrainerError('usage', `${reason}; see node --import tsx ${program.name} --help`, { cause })
  }
}

/** The jobs named, in the order in which they run; none named means all. */
function chosenJobs(names: string[]): JobName[] {
  const unknown = names.find(name => !jobNames.some(job => job === name))
  if (unknown !== undefined) {
    throw new TrainerError('usage', `Unknown job "${unknown}"; the jobs are ${jobNames.join(', ')}`)
  }
  return jobNames.filter(job => !names.length || names.includes(job))
}

function folder(value: string): string {
  if (value === '') throw new TrainerError('usage', '--models-dir is "", expected a folder')
  return value
}

function wholeMb(value: string): number {
  const megabytes = /^\d+$/.test(value) ? Number(value) : 0
  if (megabytes >= 1 && megabytes <= Number.MAX_SAFE_INTEGER / MIB) return megabytes
  throw new TrainerError('usage', `--max-disk-mb is "${value}", expected a whole number of at least 1`)
}

function helpText({ name, summary, job }: Program): string {
  const jobs = job ? '' : ' [core] [dpi] [agent]'
  const quota = job
    ? '\n  --max-disk-mb N    the limit of this run, in MiB, instead of the one in quotas.json'
    : ''
  return `${summary}

  node --import tsx ${name}${jobs} [options]

  --models-dir DIR   where models and state are kept (else RANSOMEYE_MODELS_DIR, else modelsDir in quotas.json)
  --quotas FILE      the quotas file (default: quotas.json of this project)${quota}
  --retrain          train although the published models are valid
  --dry-run          say what would be pruned and trained; change nothing
  --json             one JSON object a line, nothing else, on stdout
  --help, --version

Exit codes: 0 done, 1 training failed, 2 quota violated, 3 not enough disk space or no access to it,
64 wrong usage, 75 another run holds the lock, 78 quotas.json invalid, 130 SIGINT, 143 SIGTERM

Example: node --import tsx ${name}${job ? '' : ' agent'} --models-dir /tmp/models --retrain`
}
