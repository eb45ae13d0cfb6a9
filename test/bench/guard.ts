import { mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { accountOf } from '../../lib/storage/capacity.ts'
import { lookAt } from '../../lib/storage/measure.ts'
import { safePath } from '../../lib/system/programs.ts'
import { MIB } from '../../lib/text.ts'
import { heldFiles } from '../../lib/training/open-files.ts'
import { Training } from '../../lib/training/process.ts'
import { type Containment, contain, useSandbox } from '../../lib/training/sandbox.ts'
import { publishes, trainerRig, untilEvent } from '../support/rig.ts'
import { sandbox } from '../support/sandbox.ts'
import { processorMs, untilEnd } from './process.ts'
import { elapsedMs, inTurns, median, runProgram } from './rounds.ts'
import { makeFiles } from './storage.ts'
import { type Bench, formatMs, type Row } from './table.ts'

/** The price of being watched. */
export async function* measureGuard(bench: Bench): AsyncGenerator<Row> {
  yield* ticking(bench)
  yield await asking(bench)
  yield await freezing(bench)
  yield await idling(bench)
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
    { onLines() {}, onRetry() {}, signal: new AbortController().signal },
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

/** The orchestrator's share of one core while a training does nothing, far from its limit. */
async function idling({ signal, idleMs }: Bench): Promise<Row> {
  const trainer = `
for (let n = 0; n < 100; n++) fs.writeFileSync(dir + '/' + n, 'x')
await sleep(1e9)`
  await using rig = await trainerRig({ core: { maxDiskMb: 3072, trainer } })
  const run = rig.start(['core'])
  const end = untilEnd(run, signal)
  await untilEvent(rig, 'train.start')
  await delay(3000, undefined, { signal }) // the start itself is not meant

  const beforeMs = processorMs(run.pid)
  await Promise.race([end, delay(idleMs, undefined, { signal })])
  const share = (processorMs(run.pid) - beforeMs) / idleMs
  run.child.kill('SIGTERM')
  await end
  return {
    what: `share of a core to watch 100 files far from the limit, over ${formatMs(idleMs)}`,
    ours: share,
    format: part => `${(100 * part).toFixed(2)} %`,
    aim: { atMost: 0.02, of: 'ours' },
  }
}
