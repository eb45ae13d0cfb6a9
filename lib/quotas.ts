import { distance } from 'fastest-levenshtein'
import * as v from 'valibot'
import { MIB } from './text.ts'

/** The three trainings, in the order in which they run. */
export const jobNames = ['core', 'dpi', 'agent'] as const
export type JobName = (typeof jobNames)[number]

const wholeNumber = v.pipe(v.number('a whole number'), v.integer('a whole number'))
const positive = v.pipe(wholeNumber, v.minValue(1, 'a whole number of at least 1'))
const text = v.pipe(v.string('a string'), v.regex(/^[^\0]+$/, 'a string that is not empty'))

/** The names that are filled in where they stand in braces in a training's command or environment. */
export const placeholders = ['maxDiskMb', 'outputDir', 'modelDir'] as const

/** The placeholders of the command that accepts a model. */
export const acceptPlaceholders = ['candidateDir', 'modelDir'] as const

type Placeholder = (typeof placeholders)[number] | (typeof acceptPlaceholders)[number]

/** Name the placeholder that a misspelt one was meant to be; `${WORD}` is a shell's own, unless it is one of ours. */
function misspelling(argument: string, names: readonly Placeholder[]): string | undefined {
  const plain = (word: string) => word.replaceAll(/[-_]/g, '').toLowerCase()
  for (const [found, dollar, word] of argument.matchAll(/(\$?)\{([\w-]+)\}/g)) {
    const isMeant = (it: Placeholder) =>
      dollar ? it === word : isNear(plain(it), plain(word!)) || otherWords[it].test(plain(word!))
    const meant = names.find(isMeant)
    if (meant && found !== `{${meant}}`) return `no ${found}; did you mean {${meant}}?`
  }
  return undefined
}

/** Other words for what they are. */
const otherWords: Record<Placeholder, RegExp> = {
  candidateDir: /^candidates?(dir|directory|folder|path)?$/,
  maxDiskMb: /^(max|disk|quota)(disk|size|space)*mi?b$/,
  outputDir: /^output$|^(out|output|work)(dir|directory|folder|path)$/,
  modelDir: /^models?(dir|directory|folder|path)$/,
}

/** A letter too many or too few, or two that are wrong: more makes another word. */
function isNear(name: string, word: string): boolean {
  return Math.abs(name.length - word.length) <= 1 && distance(name, word) <= 2
}

/** A check that no placeholder of these is misspelt. */
function spelt(names: readonly Placeholder[]) {
  return v.check<string, (issue: { input: string }) => string>(
    it => !misspelling(it, names),
    ({ input }) => misspelling(input, names)!,
  )
}

const argument = v.pipe(text, spelt(placeholders))

/** A glob below the trainer's output folder; it must not be able to name anything outside. */
const glob = v.pipe(
  v.string('a glob'),
  v.regex(
    /^(?![/!])(?!(.*[/{,(|])?\.\.([/},)|]|$))[^\0]+$/,
    'a glob relative to the output folder, without ".."',
  ),
)
const globs = v.array(glob, 'a list of globs')

/** The checkpoints that a job's settings name: globs relative to the output folder, see docs/trainers.md. */
type CheckpointGlobs = { prune: string[]; keepGlobs: string[] }

/**
 * The checkpoints of common frameworks, by the names that they give by default. What both lists name stays while a job is
 * trained, and goes with the others once that has been published. Which file names the newest or best one is known without
 * a preset, as are the names of what is half-written: see lib/storage/pointers.ts and naming.ts there.
 */
const presets = {
  // transformers.Trainer: output_dir/checkpoint-500, and run-N/checkpoint-500 of a search. Accelerate's save_state():
  // checkpoints/checkpoint_5, if it is to name them.
  huggingface: { prune: ['**/checkpoint-[0-9]*/', '**/checkpoint_[0-9]*/'], keepGlobs: [] },
  // ModelCheckpoint: epoch=3-step=400.ckpt, last.ckpt beside it; a sharded one is a folder. A start that does not resume
  // makes a last-v1.ckpt, the next one last-v2.ckpt.
  lightning: { prune: ['**/*.ckpt'], keepGlobs: ['**/last.ckpt'] },
  // ModelCheckpoint with a number in its path; BackupAndRestore's backup is what it resumes from.
  keras: {
    prune: ['**/*[0-9]*.{keras,h5}', '**/best*.{keras,h5}', '**/{latest.weights.h5,training_metadata.json}*'],
    keepGlobs: ['**/best*', '**/{latest.weights.h5,training_metadata.json}*'],
  },
  // tf.train.CheckpointManager: ckpt-12.index, ckpt-12.data-00000-of-00001.
  tensorflow: { prune: ['**/ckpt-[0-9]*', '**/model.ckpt-[0-9]*', '**/cp-[0-9]*'], keepGlobs: [] },
  // runs/detect/train/weights/epoch10.pt, with save_period; it goes on from last.pt.
  ultralytics: {
    prune: ['**/weights/{epoch*,last,best}.pt'],
    keepGlobs: ['**/weights/{last,best}.pt'],
  },
  // save_checkpoint(): global_step100/, named by the file latest.
  deepspeed: { prune: ['**/global_step[0-9]*/'], keepGlobs: [] },
  // iter_0000100/, named by latest_checkpointed_iteration.txt.
  megatron: { prune: ['**/iter_[0-9]*/'], keepGlobs: [] },
} satisfies Record<string, CheckpointGlobs>

/**
 * Names that loops of one's own give to the best, whatever the framework: one that compares with it would publish nothing
 * else until it has beaten the last training.
 */
export const bestCheckpoints = ['**/{best*,*[-_.]best}.{ckpt,pt,pth,pth.tar,h5,keras}', '**/best_model.*']

/** Names that are taken for a checkpoint to go on from where the job names no framework. */
export const usualCheckpoints = [
  presets.huggingface,
  presets.tensorflow,
  presets.deepspeed,
  presets.megatron,
  { prune: ['**/*epoch*[0-9]*.ckpt', '**/*step*[0-9]*.ckpt', '**/last*.ckpt'] },
  {
    prune: [
      '**/*{epoch,step,iter,iteration,checkpoint,ckpt}{,-,_,=,.}[0-9]*.{ckpt,pt,pth,h5,keras}',
      '**/{last,latest,checkpoint,ckpt}.{ckpt,pt,pth,pth.tar}',
    ],
  },
].flatMap(({ prune }) => prune)

type Framework = keyof typeof presets

const frameworks = Object.keys(presets) as Framework[]

/** Put a framework's globs before those of the job. */
function globsOf(framework: Framework | undefined, prune: string[], keep: string[]): CheckpointGlobs {
  const preset = framework && presets[framework]
  return {
    prune: [...(preset?.prune ?? []), ...prune],
    keepGlobs: [...(preset?.keepGlobs ?? []), ...keep],
  }
}
const figure = v.number('a number')

/** The least that a new model must reach: a figure, and how far below that of the current model it may fall. */
const metricBounds = v.pipe(
  v.strictObject(
    { min: v.optional(figure), maxDrop: v.optional(v.pipe(figure, v.minValue(0, 'a number of at least 0'))) },
    'an object with min or maxDrop',
  ),
  v.check(({ min, maxDrop }) => min !== undefined || maxDrop !== undefined, 'an object with min or maxDrop'),
)

const accept = v.strictObject(
  {
    metrics: v.optional(v.record(v.string(), metricBounds, 'an object of bounds by metric'), {}),
    command: v.optional(
      v.pipe(
        v.array(v.pipe(text, spelt(acceptPlaceholders)), 'a command as a list of strings'),
        v.minLength(1, 'a command as a list of at least one string'),
      ),
    ),
  },
  'an object with metrics or command',
)

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
    accept: v.optional(accept),
    keepGenerations: v.optional(v.pipe(wholeNumber, v.minValue(0, 'a whole number of at least 0')), 1),
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
        v.pipe(v.string('a string'), v.regex(/^[^\0]*$/, 'a string without NUL'), spelt(placeholders)),
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

/** Replace the quota in a job's settings by `maxDiskMb`, unless that is undefined. */
export function limitedTo(quota: Quota, maxDiskMb: number | undefined): Quota {
  return maxDiskMb === undefined ? quota : { ...quota, maxDiskMb, quotaBytes: maxDiskMb * MIB }
}
