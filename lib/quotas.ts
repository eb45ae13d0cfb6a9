import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import * as v from 'valibot'
import { messageOf, TrainerError } from './errors.ts'

/** The three trainings, in the order in which they run. */
export const jobNames = ['core', 'dpi', 'agent'] as const
export type JobName = (typeof jobNames)[number]

/** One mebibyte: what every "MB" and "Mb" of this project means. */
export const MIB = 2 ** 20

const wholeNumber = v.pipe(v.number('a whole number'), v.integer('a whole number'))
const positive = v.pipe(wholeNumber, v.minValue(1, 'a whole number of at least 1'))
const text = v.pipe(
  v.string('a string'),
  v.nonEmpty('a string that is not empty'),
  v.regex(/^[^\0]*$/, 'a string without NUL'),
)

/** A glob below the trainer's output folder; it must not be able to name anything outside. */
const glob = v.pipe(
  text,
  v.regex(/^(?!\/|!)/, 'a glob relative to the output folder'),
  v.regex(/^(?!(.*[/{,(|])?\.\.([/},)|]|$))/, 'a glob that stays inside the output folder, without ".."'),
)
const globs = v.array(glob, 'a list of globs')

const jobSchema = v.strictObject(
  {
    maxDiskMb: v.pipe(positive, v.maxValue(2 ** 30, 'a whole number of at most 1073741824')),
    train: v.pipe(
      v.array(text, 'a command as a list of strings'),
      v.minLength(1, 'a command as a list of at least one string'),
    ),
    models: v.optional(v.pipe(globs, v.minLength(1, 'a list of at least one glob')), ['*.onnx']),
    prune: v.optional(globs, []),
    timeoutMinutes: v.optional(v.pipe(v.number('a number'), v.gtValue(0, 'a number above 0'))),
    env: v.optional(
      v.record(
        v.pipe(v.string(), v.regex(/^[^=\0]+$/, 'a variable name without "="')),
        v.pipe(v.string('a string'), v.regex(/^[^\0]*$/, 'a string without NUL')),
        'an object of strings',
      ),
      {},
    ),
    minFreeMb: v.optional(v.pipe(wholeNumber, v.minValue(0, 'a whole number of at least 0')), 64),
    sandbox: v.optional(v.picklist(['auto', 'off', 'required'], '"auto", "off" or "required"'), 'auto'),
  },
  'an object',
)

const modelsDirSchema = v.pipe(
  text,
  v.regex(/^(?!(.*\/)?\.\.(\/|$))/, 'a folder without ".." (absolute, or relative to this file)'),
)

/** The form of quotas.json; lib/quotas.schema.json is generated from it (scripts/schema.ts). */
export const quotasSchema = v.strictObject(
  {
    $schema: v.optional(v.string('a string')),
    modelsDir: v.optional(modelsDirSchema),
    maxLoadPerCore: v.optional(v.pipe(v.number('a number'), v.gtValue(0, 'a number above 0')), 0.8),
    jobs: v.strictObject({ core: jobSchema, dpi: jobSchema, agent: jobSchema }, 'an object'),
  },
  'an object',
)

/** One job's settings, defaults filled in. */
export type Quota = v.InferOutput<typeof jobSchema>

/** quotas.json, validated; `dir` is its folder, the working directory of every training. */
export type Quotas = v.InferOutput<typeof quotasSchema> & { dir: string }

/**
 * Read and validate a quotas file.
 *
 * @throws {TrainerError} `config`: unreadable, not JSON, or a value out of place; every fault has a line of
 * its own that names the key, what it was and what was expected.
 */
export function readQuotas(file: string): Quotas {
  const result = v.safeParse(quotasSchema, parseJson(file))
  if (!result.success) {
    throw new TrainerError('config', result.issues.map(issue => `${file}: ${describe(issue)}`).join('\n'))
  }
  const dir = dirname(resolve(file))
  const { modelsDir, ...rest } = result.output
  return modelsDir === undefined ? { ...rest, dir } : { ...rest, dir, modelsDir: resolve(dir, modelsDir) }
}

function parseJson(file: string): unknown {
  let content: string
  try {
    content = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new TrainerError('config', `Cannot read the quotas file: ${messageOf(cause)}`, { cause })
  }
  try {
    return JSON.parse(content)
  } catch (cause) {
    throw new TrainerError('config', `${file} is not JSON: ${messageOf(cause)}`, { cause })
  }
}

function describe(issue: v.BaseIssue<unknown>): string {
  const key = v.getDotPath(issue) ?? 'the file'
  if (issue.type === 'strict_object' && issue.expected === 'never') {
    return `${key} is not a known key; remove it or mend its spelling`
  }
  if (issue.input === undefined) return `${key} is missing, expected ${wanted(issue)}`
  return `${key} is ${shown(issue.input)}, expected ${wanted(issue)}`
}

function wanted(issue: v.BaseIssue<unknown>): string {
  return issue.kind === 'schema' && issue.type === 'strict_object' && issue.input === undefined
    ? 'an object'
    : issue.message
}

function shown(value: unknown): string {
  const json = JSON.stringify(value)
  return json.length > 60 ? `${json.slice(0, 57)}...` : json
}
