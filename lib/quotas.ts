import { dirname, resolve } from 'node:path'
import { distance } from 'fastest-levenshtein'
import * as v from 'valibot'
import { frameworks, globsOf } from './quotas/frameworks.ts'
import { readJsonFile } from './system/json-file.ts'
import { MIB } from './text.ts'

/** The three trainings, in the order in which they run. */
export const jobNames = ['core', 'dpi', 'agent'] as const
export type JobName = (typeof jobNames)[number]

const wholeNumber = v.pipe(v.number('a whole number'), v.integer('a whole number'))
const positive = v.pipe(wholeNumber, v.minValue(1, 'a whole number of at least 1'))
const text = v.pipe(v.string('a string'), v.regex(/^[^\0]+$/, 'a string that is not empty'))

/** The names that are filled in where they stand in braces in a training's command or environment. */
export const placeholders = ['maxDiskMb', 'outputDir', 'modelDir'] as const

/** Name the placeholder that a misspelt one was meant to be; `${WORD}` is a shell's own. */
function misspelling(argument: string): string | undefined {
  const plain = (word: string) => word.replaceAll(/[-_]/g, '').toLowerCase()
  for (const [found, word] of argument.matchAll(/(?<!\$)\{([\w-]+)\}/g)) {
    const meant = placeholders.find(it => isNear(plain(it), plain(word!)))
    if (meant && meant !== word) return `no ${found}; did you mean {${meant}}?`
  }
  return undefined
}

/** A letter too many or too few, or two that are wrong: more makes another word. */
function isNear(name: string, word: string): boolean {
  return Math.abs(name.length - word.length) <= 1 && distance(name, word) <= 2
}

const misspellingIn = ({ input }: { input: string }) => misspelling(input)!

const argument = v.pipe(
  text,
  v.check(it => !misspelling(it), misspellingIn),
)

/** A glob below the trainer's output folder; it must not be able to name anything outside. */
const glob = v.pipe(
  v.string('a glob'),
  v.regex(
    /^(?![/!])(?!(.*[/{,(|])?\.\.([/},)|]|$))[^\0]+$/,
    'a glob relative to the output folder, without ".."',
  ),
)
const globs = v.array(glob, 'a list of globs')

const jobObject = v.strictObject(
  {
    maxDiskMb: v.pipe(positive, v.maxValue(2 ** 30, 'a whole number of at most 1073741824')),
    train: v.pipe(
      v.array(argument, 'a command as a list of strings'),
      v.minLength(1, 'a command as a list of at least one string'),
    ),
    models: v.optional(v.pipe(globs, v.minLength(1, 'a list of at least one glob')), ['*.onnx']),
    framework: v.optional(v.picklist(frameworks, frameworks.map(name => `"${name}"`).join(', '))),
    prune: v.optional(globs, []),
    keep: v.optional(globs, []),
    resume: v.optional(v.picklist(['unpublished', 'always'], '"unpublished" or "always"'), 'unpublished'),
    timeoutMinutes: v.optional(
      v.pipe(
        v.number('a number'),
        v.gtValue(0, 'a number above 0'),
        v.maxValue(35_000, 'a number of at most 35000'),
      ),
    ),
    graceSeconds: v.optional(
      v.pipe(
        v.number('a number'),
        v.minValue(0, 'a number of at least 0'),
        // The systemd unit waits somewhat longer than that.
        v.maxValue(300, 'a number of at most 300'),
      ),
      10,
    ),
    env: v.optional(
      v.record(
        v.pipe(v.string(), v.regex(/^[^=\0]+$/, 'a variable name without "="')),
        v.pipe(
          v.string('a string'),
          v.regex(/^[^\0]*$/, 'a string without NUL'),
          v.check(it => !misspelling(it), misspellingIn),
        ),
        'an object of strings',
      ),
      {},
    ),
    minFreeMb: v.optional(v.pipe(wholeNumber, v.minValue(0, 'a whole number of at least 0')), 64),
    sandbox: v.optional(v.picklist(['auto', 'off', 'required'], '"auto", "off" or "required"'), 'auto'),
    network: v.optional(v.picklist(['host', 'none'], '"host" or "none"'), 'host'),
  },
  'an object',
)

/** The one place where a quota in MiB becomes bytes, and a framework the globs of its checkpoints. */
const jobSchema = v.pipe(
  jobObject,
  v.transform(({ prune, keep, ...job }) => ({
    ...job,
    quotaBytes: job.maxDiskMb * MIB,
    globs: globsOf(job.framework, prune, keep),
  })),
)

const modelsDirSchema = v.pipe(
  v.string('a folder'),
  v.regex(/^(?!(.*\/)?\.\.(\/|$))[^\0]+$/, 'a folder without ".." (absolute, or relative to this file)'),
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

/** One job's settings, as they are written. */
export type QuotaSettings = v.InferInput<typeof jobSchema>

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
  const quotas = readJsonFile(file, quotasSchema, subject)
  const dir = dirname(resolve(file))
  const { modelsDir, ...rest } = quotas
  return modelsDir === undefined ? { ...rest, dir } : { ...rest, dir, modelsDir: resolve(dir, modelsDir) }
}

const subject = {
  name: 'the quotas file',
  remedy: 'name one that this user can read: --quotas FILE',
  expected: { maxDiskMb: 'a whole number of at least 1', train: 'a command as a list of strings' },
}

/** Replace the quota in a job's settings by `maxDiskMb`, unless that is undefined. */
export function limitedTo(quota: Quota, maxDiskMb: number | undefined): Quota {
  return maxDiskMb === undefined ? quota : { ...quota, maxDiskMb, quotaBytes: maxDiskMb * MIB }
}
