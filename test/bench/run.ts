import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { formatBytes, MIB } from '../../lib/text.ts'
import { root } from '../support/places.ts'
import { publishes, trainerRig } from '../support/rig.ts'
import { sandbox } from '../support/sandbox.ts'
import { peakBytesOf, untilEnd } from './process.ts'
import { elapsedMs, inTurns, median, runProgram } from './rounds.ts'
import { type Bench, formatMs, type Row } from './table.ts'

/** Runs that train. */
export async function* measureRuns(bench: Bench): AsyncGenerator<Row> {
  yield await day1(bench)
  yield await printing(bench)
  yield await slowing(bench)
}

async function day1({ signal }: Bench): Promise<Row> {
  await using box = await sandbox()
  const command = [process.execPath, '--import', 'tsx', 'tasks.ts', '--models-dir', box.path('models')]
  return {
    what: 'Day 1: all three seed models trained and published',
    ours: await elapsedMs(() => runProgram(command, signal, { cwd: root })),
    format: formatMs,
    aim: { atMost: 60_000, of: 'ours' },
  }
}

async function printing({ signal }: Bench): Promise<Row> {
  const trainer = `
const block = ('x'.repeat(99) + '\\n').repeat(10_000)
for (let n = 0; n < 1000; n++) fs.writeSync(1, block)
${publishes}`
  await using rig = await trainerRig({ core: { trainer } })
  const run = rig.start(['core'])
  const peakBytes = await peakBytesOf(run, signal)
  return {
    what: 'peak memory while a training prints 1 GB',
    ours: peakBytes,
    format: formatBytes,
    aim: { atMost: 120 * MIB, of: 'ours' },
  }
}

/** Some seconds of computing, with a checkpoint of 8 MiB every now and then: a small training as it is. */
const works = `
function step(sum) {
  for (let n = 0; n < 1e8; n++) sum = (sum * 31 + n) | 0
  return sum
}
for (let epoch = 0, sum = 1; epoch < 20; epoch++) {
  sum = step(sum)
  fs.writeFileSync(dir + '/epoch-' + (epoch % 4) + '.checkpoint', Buffer.alloc(8 * ${MIB}, sum))
}
${publishes}`

async function slowing({ signal }: Bench): Promise<Row> {
  await using rig = await trainerRig({ core: { maxDiskMb: 200, trainer: works } })
  const aloneDir = rig.path('alone')
  mkdirSync(aloneDir)
  const env = { ...process.env, RANSOMEYE_OUTPUT_DIR: aloneDir, RANSOMEYE_JOB: 'core' }
  const { ours, alone } = await inTurns(5, signal, {
    ours: async () => {
      const { events } = await untilEnd(rig.start(['core', '--retrain', '--json']), signal)
      const exit = events.find(it => it.event === 'train.exit')
      if (exit?.exitCode !== 0) throw new Error(`the training ended with ${exit?.exitCode}`)
      return exit.seconds * 1000
    },
    alone: () => elapsedMs(() => runProgram([process.execPath, join(rig.dir, 'core.mjs')], signal, { env })),
  })
  return {
    what: 'a training under the orchestrator',
    ours: median(ours),
    beside: { what: 'the same command alone', value: median(alone) },
    format: formatMs,
    aim: { atMost: 1.02, of: 'ratio' },
  }
}
