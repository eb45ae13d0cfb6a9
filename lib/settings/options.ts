import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { nameCommand, root } from '../system/start-command.ts'

const require = createRequire(import.meta.url)

/** One option of a script: a flag, or one that takes a value. */
export type Option = { help: string; short?: string } & (
  | { type: 'boolean' }
  | { type: 'string'; value: string }
)

/** A script as its help shows it. */
export type Program<O extends Record<string, Option>> = {
  /** Path from the project's folder. */
  name: string
  summary: string
  /** Positional arguments as shown in help; omit to allow none. */
  positionals?: string
  options: O
  /** Arguments for a first try. */
  example: string
  /** Further lines of help; the whole help fits on a screen. */
  notes?: string
}

/** The values of the options; an option that was left out is undefined. */
export type Values<O extends Record<string, Option>> = {
  [name in keyof O]?: O[name] extends { type: 'string' } ? string : boolean
}

const common = {
  help: { type: 'boolean', short: 'h', help: 'show this and end' },
  version: { type: 'boolean', help: 'show the version and end' },
} as const satisfies Record<string, Option>

/**
 * Read a script's command line.
 *
 * @returns the values and positional arguments, or the text that `--help` or `--version` asks for
 * @throws {TrainerError} `usage`, with the nearest option where one is close
 */
export function readOptions<O extends Record<string, Option>>(
  args: string[],
  program: Program<O>,
): { values: Values<O>; positionals: string[] } | string {
  const options: Record<string, Option> = { ...program.options, ...common }
  try {
    const { values, positionals } = parseArgs({
      args,
      options,
      allowPositionals: program.positionals !== undefined,
    })
    if (values.help) return helpOf(program, options)
    if (values.version) return packageVersion()
    refuseTakenByNpm(program.options)
    for (const [name, value] of Object.entries(values)) {
      if (value === '')
        throw new TrainerError('usage', `--${name} is "", expected ${expectedOf(options[name]!)}`)
    }
    return { values: values as Values<O>, positionals }
  } catch (cause) {
    if (!isErrno(cause, ...parseFaults)) throw cause
    const reason = reword(messageOf(cause).split(/\.\s/)[0]!, options)
    throw new TrainerError('usage', `${reason}; see ${nameCommand(program.name, '--help')}`, { cause })
  }
}

/** Refuse options before `--` after `npm start`: npm takes them for its own and passes them on as variables alone. */
function refuseTakenByNpm(options: Record<string, Option>): void {
  if (process.env.npm_lifecycle_event !== 'start') return
  const taken = Object.keys(options).find(name => process.env[`npm_config_${name.replaceAll('-', '_')}`])
  if (taken) {
    const remedy = `put a -- before the options: npm start -- --${taken}`
    throw new TrainerError('usage', `npm has taken --${taken} for an option of its own; ${remedy}`)
  }
}

const parseFaults = [
  'ERR_PARSE_ARGS_UNKNOWN_OPTION',
  'ERR_PARSE_ARGS_INVALID_OPTION_VALUE',
  'ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL',
]

/** Read the version from package.json. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}

/** Suggest the known word that was probably meant, as the end of a sentence; empty if none is close. */
export function didYouMean(word: string, known: readonly string[]): string {
  // Load it only here: loading takes longer than reading the options.
  const { closest, distance } = require('fastest-levenshtein') as typeof import('fastest-levenshtein')
  const near = closest(word, [...known])
  return distance(word, near) <= Math.max(2, near.length / 3) ? `; did you mean ${near}?` : ''
}

function reword(reason: string, options: Record<string, Option>): string {
  const unknown = /^Unknown option '(--?[^']*)'/.exec(reason)?.[1]
  if (unknown) {
    const names = Object.keys(options).map(name => `--${name}`)
    return `${reason}${didYouMean(unknown, names)}`
  }
  const bare = /^Option '--([\w-]+).*' argument (is ambiguous|missing)$/.exec(reason)?.[1] ?? ''
  const option = options[bare]
  return option ? `--${bare} lacks its value, as in --${bare} ${expectedOf(option)}: ${option.help}` : reason
}

function helpOf(program: Program<Record<string, Option>>, options: Record<string, Option>): string {
  const lines = Object.entries(options).map(([name, option]) => {
    const short = option.short ? `, -${option.short}` : ''
    const value = option.type === 'string' ? ` ${option.value}` : ''
    return `  ${`--${name}${short}${value}`.padEnd(20)} ${option.help}`
  })
  const command = nameCommand(program.name)
  const positionals = program.positionals ? ` ${program.positionals}` : ''
  return [
    program.summary,
    `  ${command}${positionals} [options]`,
    lines.join('\n'),
    ...(program.notes ? [program.notes] : []),
    `Example: ${command} ${program.example}`,
  ].join('\n\n')
}

function expectedOf(option: Option): string {
  return option.type === 'string' ? option.value : 'no value'
}

export const MINUTE_MS = 60_000

const unitsMs: Record<string, number> = { s: 1000, m: MINUTE_MS, h: 60 * MINUTE_MS, d: 24 * 60 * MINUTE_MS }

/**
 * Parse a duration such as `90s`, `30m`, `24h` or `7d`. Returns milliseconds.
 *
 * @throws {TrainerError} `usage`, naming the option
 */
export function parseDuration(option: string, value: string): number {
  const [, amount, unit] = /^(\d{1,6})([smhd])$/.exec(value) ?? []
  const durationMs = Number(amount) * unitsMs[unit ?? 's']!
  if (durationMs > 0) return durationMs
  throw new TrainerError('usage', `${option} is "${value}", expected a duration such as 90s, 30m, 24h or 7d`)
}
