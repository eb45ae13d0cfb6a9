import { existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { bundle } from '../../debian/build/bundle.ts'
import { accountOf } from '../../lib/storage/capacity.ts'
import { lookAt } from '../../lib/storage/measure.ts'
import { readProc } from '../../lib/system/processes.ts'
import { safePath } from '../../lib/system/programs.ts'
import { formatBytes, MIB } from '../../lib/text.ts'
import { heldFiles } from '../../lib/training/held-files.ts'
import { Training } from '../../lib/training/process.ts'
import { type Containment, contain, useSandbox } from '../../lib/training/sandbox.ts'
import { root } from '../support/places.ts'
import { publishes, type Started, trainerRig } from '../support/rig.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { peakBytesOf, processorMs, untilEnd } from './process.ts'
import { elapsedMs, inTurns, median, runProgram } from './rounds.ts'
import { makeFiles } from './storage.ts'
import { type Bench, formatMs, type Row } from './table.ts'

/** The price of being watched. */
export async function* measureGuard(bench: Bench): AsyncGenerator<Row> {
  yield* ticking(bench)
  yield await asking(bench)
  yield await freezing(bench)
  yield* idling(bench)
  yield await pruningMany(bench)
}

/** One look of the guard: a walk, and the files that the training has open. */
async function* ticking({ signal }: Bench): AsyncGenerator<Row> {
  await using box = await sandbox()
  const dir = box.path('core')
  await using training = await startSleeping(dir)
  let made = 0
  for (const count of [1000, 10_000, 100_000]) {
    makeFiles(join(dir, 'work'), made, count, '')
    made = count
    const { ours, du } = await inTurns(9, signal, {
      ours: () =>
        elapsedMs(async () => {
          await lookAt(dir, { keep: [] })
          await heldFiles(training.processes(), { dir, sinceMs: 0, isThorough: true })
        }),
      du: () => elapsedMs(() => runProgram(['du', '-s', dir], signal)),
    })
    yield {
      what: `a look at ${count.toLocaleString('en')} files`,
      ours: median(ours),
      beside: { what: '`du -s`', value: median(du) },
      format: formatMs,
    }
  }
}

async function startSleeping(dir: string): Promise<Training & AsyncDisposable> {
  mkdirSync(join(dir, 'work', 'tmp'), { recursive: true })
  const isSandboxed = useSandbox('core', 'auto')
  const containment: Containment = {
    jobDir: dir,
    publishedDir: dir,
    workingDir: '/',
    isSandboxed,
    isCapped: false,
    network: 'host',
    maxFileBytes: 2 ** 40,
    path: safePath,
  }
  const training = await Training.start(
    {
      ...contain(['sleep', 'infinity'], containment),
      cwd: '/',
      env: { PATH: safePath, RANSOMEYE_OUTPUT_DIR: join(dir, 'work') },
      lockFd: openSync(join(dir, 'lock'), 'w'),
    },
    { onLines() {}, onRedraw() {}, onRetry() {}, signal: new AbortController().signal },
  )
  return Object.assign(training, { [Symbol.asyncDispose]: () => training.kill() })
}

async function asking({ signal }: Bench): Promise<Row> {
  await using box = await sandbox()
  const calls = 1000
  const { ours, df } = await inTurns(21, signal, {
    ours: async () => {
      const startedMs = performance.now()
      for (let call = 0; call < calls; call++) accountOf(box.dir)
      return (performance.now() - startedMs) / calls
    },
    df: () => elapsedMs(() => runProgram(['df', box.dir], signal)),
  })
  return {
    what: 'a look at a volume, whatever it holds',
    ours: median(ours),
    beside: { what: '`df`', value: median(df) },
    format: formatMs,
    aim: { atMost: 0.05, of: 'ours' },
  }
}

/** Five checkpoints of 1 GiB in a quota of 3 GiB: each prune takes one. */
const outgrows = `
const block = Buffer.alloc(${MIB}, 1)
for (let epoch = 0; epoch < 5; epoch++) {
  const fd = fs.openSync(dir + '/epoch-' + epoch + '.checkpoint', 'w')
  for (let n = 0; n < 1024; n++) fs.writeSync(fd, block)
  fs.closeSync(fd)
}
${publishes}`

async function freezing({ signal }: Bench): Promise<Row> {
  await using rig = await trainerRig({ core: { maxDiskMb: 3072, trainer: outgrows } })
  const { exitCode, events } = await untilEnd(rig.start(['core', '--json']), signal)
  const pauses = events.flatMap((it, index) =>
    it.event === 'train.resume' && events[index - 1]?.event === 'storage.prune' ? [it.pausedMs] : [],
  )
  if (exitCode !== 0 || !pauses.length) throw new Error(`exit code ${exitCode}, ${pauses.length} prunes`)
  const file = rig.path('checkpoint')
  const { rm } = await inTurns(3, signal, {
    rm: () => {
      for (let n = 0; n < 1024; n++) writeFileSync(file, Buffer.alloc(MIB, 1), { flag: 'a' })
      return elapsedMs(() => runProgram(['rm', file], signal))
    },
  })
  return {
    what: `frozen to prune 1 GiB`,
    ours: median(pauses),
    beside: { what: '`rm` of 1 GiB', value: median(rm) },
    format: formatMs,
    aim: { atMost: 250, of: 'ours' },
  }
}

/** Files that a training may have beside what it writes: a quota is of bytes, and nobody says how many they are in. */
const COUNTS = [100, 100_000, 600_000]

/** A training with so many empty files that then does nothing. */
const sleeps = (count: number) => `
for (let n = 0; n < ${count}; n++) {
  if (n % 10_000 === 0) fs.mkdirSync(dir + '/part-' + n / 10_000)
  fs.closeSync(fs.openSync(dir + '/part-' + Math.floor(n / 10_000) + '/' + n, 'w'))
}
fs.writeFileSync(dir + '/made', '')
await sleep(1e9)`

/** The orchestrator's share of one core while a training does nothing, far from its limit; its memory; a signal. */
async function* idling({ signal, idleMs }: Bench): AsyncGenerator<Row> {
  for (const count of COUNTS) {
    const files = `${count.toLocaleString('en')} files`
    await using rig = await trainerRig({ core: { maxDiskMb: 3072, trainer: sleeps(count) } })
    const run = rig.start(['core'])
    const end = untilEnd(run, signal)
    const workDir = join(rig.modelsDir, 'core', 'work')
    await until('the files are made', () => existsSync(join(workDir, 'made')), 600_000)
    await delay(3000, undefined, { signal }) // the start itself is not meant

    // A walk of very many files takes seconds, and comes once in minutes.
    const watchedMs = count > 100_000 ? 4 * idleMs : idleMs
    const beforeMs = processorMs(run.pid)
    await Promise.race([end, delay(watchedMs, undefined, { signal })])
    const share = (processorMs(run.pid) - beforeMs) / watchedMs
    const peakKib = Number(/VmHWM:\s+(\d+)/.exec(readProc(`${run.pid}/status`) ?? '')?.[1])
    const duMs = await elapsedMs(() => runProgram(['du', '-s', workDir], signal))
    const heardMs = await timeToHear(run)
    await end

    const watched = `${files} watched far from the limit, for ${formatMs(watchedMs)}`
    yield {
      what: `share of a core: ${watched}`,
      ours: share,
      beside: { what: '`du -s` once a second', value: Math.min(duMs / 1000, 1) },
      format: part => `${(100 * part).toFixed(2)} %`,
      aim: { atMost: 0.02, of: 'ours' },
    }
    yield {
      what: `peak memory: ${watched}`,
      ours: peakKib * 1024,
      format: formatBytes,
      aim: { atMost: 120 * MIB, of: 'ours' },
    }
    yield {
      what: `SIGTERM heard: ${watched}`,
      ours: heardMs,
      format: formatMs,
      aim: { atMost: 100, of: 'ours' },
    }
  }
}

/** How long a run takes to say that it is interrupted. */
async function timeToHear(run: Started): Promise<number> {
  const startedMs = performance.now()
  run.child.kill('SIGTERM')
  await until('the signal is heard', () => run.output().includes('interrupted by SIGTERM'), 60_000)
  return performance.now() - startedMs
}

/** The most memory while checkpoints are pruned for the sake of the quota, all but a few: as the package has the program. */
async function pruningMany({ signal }: Bench): Promise<Row> {
  const count = 400_000
  // A retraining finds the folders of the first, and prunes what is in them before it begins.
  const trainer = `
if (!fs.existsSync(dir + '/part-0')) for (let n = 0; n < ${count}; n++) {
  if (n % 10_000 === 0) fs.mkdirSync(dir + '/part-' + n / 10_000)
  fs.writeFileSync(dir + '/part-' + Math.floor(n / 10_000) + '/' + n + '.checkpoint', 'x')
}
${publishes}`
  await using rig = await trainerRig({ core: { maxDiskMb: 2048, trainer } })
  await bundle(root, rig.path('program'))
  await untilEnd(rig.start(['core']), signal)
  const again = { script: 'scripts/core.ts', bundle: rig.path('program') }
  const peakBytes = await peakBytesOf(rig.start(['--retrain', '--max-disk-mb', '25'], again), signal)
  return {
    what: `peak memory: ${count.toLocaleString('en')} checkpoints pruned, by the package`,
    ours: peakBytes,
    format: formatBytes,
    aim: { atMost: 120 * MIB, of: 'ours' },
  }
}
