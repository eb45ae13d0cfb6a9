import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainerEvent } from '../../lib/events.ts'
import { type JobName, jobNames, type QuotaSettings } from '../../lib/quotas.ts'
import { onnxModel } from './onnx-fixture.ts'
import { isSweep, programOf, root } from './places.ts'
import { type Sandbox, sandbox, until } from './sandbox.ts'

/**
 * Most runs of `npm test` are over before V8 would gain from what it optimizes: without that, and with one thread to collect
 * garbage, they take a tenth less of the processor. The sweep has them as they are.
 */
const brief = isSweep ? [] : ['--no-opt', '--no-sparkplug', '--single-threaded-gc']

/** A fake trainer: the body of an ES module with `fs`, `dir` (its output folder), `maxMb` and `job` in scope. */
export type FakeTrainer = string

/** Writes what a successful training leaves. */
export const publishes: FakeTrainer = `fs.copyFileSync(fixture, dir + '/' + job + '.onnx')`

/** Writes checkpoints of 4 MiB for three times the quota. */
export const writesThrice = (quotaMb: number): FakeTrainer => `
for (let n = 0; n < ${(3 * quotaMb) / 4}; n++) {
  const fd = fs.openSync(dir + '/epoch-' + n + '.checkpoint', 'w')
  for (let m = 0; m < 4; m++) { fs.writeSync(fd, Buffer.alloc(2 ** 20, n)); await sleep(30) }
  fs.closeSync(fd)
}
${publishes}`

export type Rig = Sandbox & {
  modelsDir: string
  /** Start a script (default tasks.ts) with the rig's quotas and models folder. */
  start: (args?: string[], options?: StartOptions) => Started
  /** Start and wait for the end. */
  run: (args?: string[], options?: StartOptions) => Promise<Ended>
  /** Everything in the journal. */
  events: () => TrainerEvent[]
}

type StartOptions = {
  script?: string
  env?: Record<string, string>
  /** A command to run it by, such as strace. */
  prefix?: string[]
  /** Give --models-dir; else the run has to find out. */
  withModelsDir?: boolean
  /** Start it by tsx, as operators do; else as plain JavaScript, where the tests run so. */
  byTsx?: boolean
  /** The folder of a bundle, to run that instead. */
  bundle?: string
}
export type Ended = {
  exitCode: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  events: TrainerEvent[]
}
export type Started = { child: ChildProcess; pid: number; output: () => string; ended: Promise<Ended> }

/**
 * A folder with a quotas file of small fake trainers and a models folder, and the means to run tasks.ts on them.
 *
 * @example await using rig = await trainerRig({ core: { maxDiskMb: 5, trainer: publishes } })
 */
export async function trainerRig(
  jobs: Partial<Record<JobName, Partial<QuotaSettings> & { trainer?: FakeTrainer }>> = {},
  top: Record<string, unknown> = {},
): Promise<Rig> {
  const box = await sandbox({ 'fixture.onnx': onnxModel() })
  const quotas = Object.fromEntries(
    jobNames.map(name => {
      const { trainer = publishes, ...quota } = jobs[name] ?? {}
      writeFileSync(box.path(`${name}.mjs`), trainerText(trainer, box.path('fixture.onnx')))
      const train = shellOf(name, trainer) ?? ['node', `${name}.mjs`]
      return [name, { maxDiskMb: 20, train, ...quota }]
    }),
  )
  writeFileSync(box.path('quotas.json'), JSON.stringify({ ...top, jobs: quotas }))
  const modelsDir = box.path('models')
  const children: ChildProcess[] = []

  const start: Rig['start'] = (
    args = [],
    { script = 'tasks.ts', env = {}, prefix = [], withModelsDir = true, byTsx = false, bundle } = {},
  ) => {
    const places = [
      '--quotas',
      box.path('quotas.json'),
      ...(withModelsDir ? ['--models-dir', modelsDir] : []),
    ]
    const own = byTsx ? ['--import', 'tsx', join(root, script)] : [...brief, ...programOf(script)]
    const node = [process.execPath, ...(bundle ? [join(bundle, script.replace(/\.ts$/, '.js'))] : own)]
    const [program, ...rest] = [...prefix, ...node, ...places, ...args]
    const child = spawn(program!, rest, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    children.push(child)
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', chunk => (stdout += chunk))
    child.stderr.on('data', chunk => (stderr += chunk))
    const ended = new Promise<Ended>(resolve => {
      child.on('close', (exitCode, signal) => {
        resolve({ exitCode, signal, stdout, stderr, events: parseEvents(stdout) })
      })
    })
    return { child, pid: child.pid!, output: () => stdout + stderr, ended }
  }
  return {
    ...box,
    async [Symbol.asyncDispose]() {
      // A run that a failed test has left would keep the whole suite from ending.
      for (const child of children) child.kill('SIGKILL')
      await box[Symbol.asyncDispose]()
    },
    modelsDir,
    start,
    run: (args, options) => start(args, options).ended,
    events: () => {
      const file = join(modelsDir, '.trainer', 'events.jsonl')
      return existsSync(file) ? parseEvents(readFileSync(file, 'utf8')) : []
    },
  }
}

/**
 * Most trainings are beside the point, and only wait and publish: a shell starts in a thirtieth of the time of Node.js.
 *
 * @returns the command, if that is all that this one does
 */
function shellOf(job: JobName, trainer: FakeTrainer): string[] | undefined {
  const [waits = '', ms = '0'] = /^await sleep\(([\d_]+)\)(?:; )?/.exec(trainer) ?? []
  const rest = trainer.slice(waits.length)
  if (rest && rest !== publishes) return undefined
  const wait = waits && `sleep ${Number(ms.replaceAll('_', '')) / 1000}`
  const copy = rest && `cp fixture.onnx "$RANSOMEYE_OUTPUT_DIR/${job}.onnx"`
  return ['sh', '-c', [wait, copy].filter(Boolean).join('; ')]
}

function trainerText(body: FakeTrainer, fixture: string): string {
  return `import fs from 'node:fs'
import { spawn, spawnSync } from 'node:child_process'
const fixture = ${JSON.stringify(fixture)}
const dir = process.env.RANSOMEYE_OUTPUT_DIR
const job = process.env.RANSOMEYE_JOB
const maxMb = Number(process.env.RANSOMEYE_MAX_DISK_MB)
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
${body}
`
}

function parseEvents(text: string): TrainerEvent[] {
  return text.split('\n').flatMap(line => {
    try {
      return line.startsWith('{') ? [JSON.parse(line)] : []
    } catch {
      return []
    }
  })
}

/** Wait for an event of a run that is going on. */
export function untilEvent<E extends TrainerEvent['event']>(
  rig: Rig,
  event: E,
  job?: JobName,
): Promise<Extract<TrainerEvent, { event: E }>> {
  return until(`event ${event}`, () =>
    rig
      .events()
      .find(
        (it): it is Extract<TrainerEvent, { event: E }> =>
          it.event === event && (job === undefined || ('job' in it && it.job === job)),
      ),
  )
}

/** Processes whose command line or environment names the rig's folder: whatever a training has left. */
export function survivors(rig: Rig): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => {
      if (!pid || pid === process.pid) return false
      try {
        const text =
          readFileSync(`/proc/${pid}/cmdline`, 'latin1') + readFileSync(`/proc/${pid}/environ`, 'latin1')
        return text.includes(rig.dir) && !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
      } catch {
        return false
      }
    })
}
