import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { env, InferenceSession, Tensor } from 'onnxruntime-web'
import type { TrainerEvent } from '../../lib/events.ts'
import type { QuotaSettings } from '../../lib/quotas.ts'
import { pages } from './pages.ts'
import { frameworks, root } from './places.ts'
import { type Rig, trainerRig } from './rig.ts'
import { until } from './sandbox.ts'
import { skipUnless } from './skips.ts'
import type { OurTest } from './test.ts'

env.wasm.numThreads = 1

const EXAMPLES = join(root, 'test/frameworks')

/** The first of several processes says it. */
const BEGINNING = `import os; os.environ.get("RANK", "0") == "0" and print("a training begins", flush=True)`

/** How long a training may take to the middle: at the lowest priority, beside all else that the sweep does. */
const FRAMEWORK_MS = 600_000

/** Wait until the training of a run has printed these words; if the run ends without them, tell how. */
export function untilSaid(
  rig: RecipeRig,
  { child, output }: ReturnType<Rig['start']>,
  words: string,
): Promise<true> {
  const isSaid = () => {
    if (rig.log().includes(words)) return true as const
    if (child.exitCode === null) return undefined
    const lines = output().split('\n')
    const said = lines.filter(line => !/"event":"train\.(output|progress)"/.test(line)).join('\n')
    throw new Error(
      `the run has ended with ${child.exitCode}, and its training has not said "${words}":\n${said}\n${rig.log().slice(-1000)}`,
    )
  }
  return until(`the training says "${words}"`, isSaid, FRAMEWORK_MS)
}

/** `test` where the virtual environment has these packages; otherwise a skip that the runner names. */
export function withPackages(test: OurTest, ...packages: string[]): ReturnType<typeof skipUnless> {
  const look =
    'import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))'
  const python = `${frameworks}/bin/python`
  const areThere = frameworks !== undefined && spawnSync(python, ['-c', look, ...packages]).status === 0
  return skipUnless(test, areThere, `needs RANSOMEYE_FRAMEWORKS with ${packages.join(', ')}`)
}

/** A recipe of docs/trainers.md: a job of quotas.json, and its program. */
type Recipe = { heading: string; json: string; program: string }

export const recipes: Recipe[] = pages
  .find(({ name }) => name === 'docs/trainers.md')!
  .text.split(/^### /m)
  .slice(1)
  .map(section => {
    const codeIn = (language: string) =>
      new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'ms').exec(section)?.[1] ?? ''
    return { heading: section.split('\n')[0]!, json: codeIn('json'), program: codeIn('python') }
  })

/** The settings of a recipe in quotas.json. */
export function jobOf({ json }: Recipe): QuotaSettings {
  return JSON.parse(`{${json}}`).core
}

export type RecipeRig = Rig & {
  /** Change the job's settings from the next run on. */
  set: (quota: Partial<QuotaSettings>) => void
  /** All that the trainings have printed. */
  log: () => string
  /** How many lines with these words each of the trainings has printed. */
  countIn: (words: RegExp) => number[]
  /** The names in the output folder that a pattern matches; by its group, if it has one. */
  names: (pattern: RegExp) => string[]
}

/** A rig whose core is trained by the recipe of a heading, as it stands there, with the example of the tests for `mine`. */
export async function recipeRig(
  heading: string,
  quota: Partial<QuotaSettings>,
  edit: (program: string) => string = program => program,
): Promise<RecipeRig> {
  const recipe = recipes.find(it => it.heading === heading)!
  const job = jobOf(recipe)
  const [first, ...rest] = job.train
  const core = { ...job, train: [first!.replace('/opt/venv', frameworks!), ...rest], ...quota }
  const rig = await trainerRig({ core })
  writeFileSync(rig.path('train.py'), `${BEGINNING}\n${edit(recipe.program)}`)
  copyFileSync(join(EXAMPLES, 'torch_network.py'), rig.path('torch_network.py'))
  copyFileSync(join(EXAMPLES, `mine/${heading}.py`), rig.path('mine.py'))
  const set = (more: Partial<QuotaSettings>) => {
    const quotas = JSON.parse(readFileSync(rig.path('quotas.json'), 'utf8'))
    Object.assign(quotas.jobs.core, more)
    writeFileSync(rig.path('quotas.json'), JSON.stringify(quotas))
  }
  const log = () => {
    const path = rig.path('models/.trainer/core.log')
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }
  return {
    ...rig,
    set,
    log,
    countIn: words =>
      log()
        .split('a training begins')
        .slice(1)
        .map(text => text.split('\n').filter(line => words.test(line)).length),
    names: pattern =>
      readdirSync(rig.path('models/core/work')).flatMap(name => {
        const found = pattern.exec(name)
        return found ? [found[1] ?? found[0]] : []
      }),
  }
}

/** Ask the published ONNX model, as a consumer would, for how many steps it was trained: each example's network says that. */
export async function askPublished(rig: Rig): Promise<number> {
  const folder = rig.path('models/core/current')
  const besides = readdirSync(folder).filter(name => !/\.(onnx|json)$/.test(name))
  const externalData = besides.map(path => ({ path, data: readFileSync(join(folder, path)) }))
  const session = await InferenceSession.create(readFileSync(join(folder, 'core.onnx')), { externalData })
  const row = new Tensor('float32', new Float32Array(1024).fill(1), [1, 1024])
  const results = await session.run({ [session.inputNames[0]!]: row })
  return Math.round(Number(results[session.outputNames[0]!]!.data[0]))
}

/** The names of what was pruned while the training of a run was running. */
export function prunedWhileTraining(events: TrainerEvent[]): string[] {
  const placeOf = (event: TrainerEvent['event']) => events.findIndex(it => it.event === event)
  const during = events.slice(placeOf('train.start'), placeOf('train.exit'))
  return during.flatMap(it => (it.event === 'storage.prune' ? [basename(it.path)] : []))
}
