import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bundle } from '../../debian/build/bundle.ts'
import { jobNames } from '../../lib/quotas.ts'
import { checkUsage } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { root } from '../support/places.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { elapsedMs, inTurns, median, runProgram } from './rounds.ts'
import { type Bench, formatMs, type Row } from './table.ts'

/** Measure the program as the package has it, plain JavaScript, beside a clone that tsx translates. */
export async function* measurePackage(bench: Bench): AsyncGenerator<Row> {
  await using box = await sandbox()
  const home = box.path('program')
  await bundle(root, home)
  const commands = {
    ours: [join(home, 'ransomeye-trainer.js'), 'run', '--quotas', quotasOf(box, home)],
    clone: ['--import', 'tsx', 'tasks.ts'],
  }
  yield await startingIdle(box, commands, bench)
  yield await holding(box, commands, bench)
  yield await day1(box, commands, bench)
  yield await installing(bench)
}

type Commands = Record<'ours' | 'clone', string[]>

/** The quotas that the package has, with its seed trainers where they are now. */
function quotasOf(box: Sandbox, home: string): string {
  const quotas = JSON.parse(readFileSync(join(root, 'quotas.json'), 'utf8'))
  for (const job of jobNames) quotas.jobs[job].train = ['node', join(home, `scripts/train/${job}.js`)]
  delete quotas.$schema
  writeFileSync(box.path('quotas.json'), JSON.stringify(quotas))
  return box.path('quotas.json')
}

function run(command: string[], modelsDir: string, signal: AbortSignal, node: string[] = []): Promise<void> {
  const argv = [process.execPath, ...node, ...command, '--models-dir', modelsDir]
  return runProgram(argv, signal, { cwd: root })
}

/** A models folder with nothing to do. */
function readyModels(box: Sandbox, name: string): string {
  for (const job of jobNames) {
    mkdirSync(box.path(name, job), { recursive: true })
    writeFileSync(box.path(name, job, `${job}.onnx`), onnxModel())
  }
  return box.path(name)
}

async function startingIdle(box: Sandbox, commands: Commands, { signal }: Bench): Promise<Row> {
  const models = readyModels(box, 'idle')
  const subjects = {
    ours: () => elapsedMs(() => run(commands.ours, models, signal)),
    clone: () => elapsedMs(() => run(commands.clone, models, signal)),
  }
  await inTurns(2, signal, subjects) // takes the models into their manifests, and fills tsx's cache
  const { ours, clone } = await inTurns(21, signal, subjects)
  return {
    what: 'the package: a start with all models valid',
    ours: median(ours),
    beside: { what: 'a clone', value: median(clone) },
    format: formatMs,
    aim: { atMost: 0.4, of: 'ratio' },
  }
}

/** Writes what the kernel says of a program's memory as it ends. */
const TELL_MEMORY = (file: string) =>
  `data:text/javascript,import fs from 'node:fs';process.on('exit',()=>fs.writeFileSync(${JSON.stringify(file)},fs.readFileSync('/proc/self/status')))`

async function holding(box: Sandbox, commands: Commands, { signal }: Bench): Promise<Row> {
  const models = readyModels(box, 'held')
  const told = box.path('status')
  const held = async (command: string[]) => {
    await run(command, models, signal, ['--import', TELL_MEMORY(told)])
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(told, 'utf8'))![1]) / 1024
  }
  const subjects = { ours: () => held(commands.ours), clone: () => held(commands.clone) }
  await inTurns(1, signal, subjects)
  const { ours, clone } = await inTurns(7, signal, subjects)
  return {
    what: 'the package: peak memory of that start',
    ours: median(ours),
    beside: { what: 'a clone', value: median(clone) },
    format: mib => `${mib.toFixed(1)} MiB`,
    aim: { atMost: 60, of: 'ours' },
  }
}

async function day1(box: Sandbox, commands: Commands, { signal }: Bench): Promise<Row> {
  let count = 0
  const train = (command: string[]) => elapsedMs(() => run(command, box.path(`day1-${count++}`), signal))
  const { ours, clone } = await inTurns(3, signal, {
    ours: () => train(commands.ours),
    clone: () => train(commands.clone),
  })
  return {
    what: 'the package: Day 1, all three seed models',
    ours: median(ours),
    beside: { what: 'a clone', value: median(clone) },
    format: formatMs,
  }
}

async function installing({ signal }: Bench): Promise<Row> {
  await using box = await sandbox()
  const command = [process.execPath, '--import', 'tsx', 'debian/deb.ts', '--out', box.dir]
  await runProgram(command, signal, { cwd: root })
  await runProgram(['sh', '-c', 'dpkg-deb --extract *.deb installed'], signal, { cwd: box.dir })
  return {
    what: 'the package: installed',
    ours: (await checkUsage(box.path('installed'))) / MIB,
    format: mib => `${mib.toFixed(1)} MiB`,
    aim: { atMost: 4, of: 'ours' },
  }
}
