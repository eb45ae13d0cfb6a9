import { copyFileSync, cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { jobNames } from '../../lib/quotas.ts'
import { checkUsage } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { root } from '../support/places.ts'
import { sandbox } from '../support/sandbox.ts'
import { elapsedMs, inTurns, median, runProgram } from './rounds.ts'
import { type Bench, formatMs, type Row } from './table.ts'

/** A start with nothing to do, and what an installation takes. */
export async function* measureStart(bench: Bench): AsyncGenerator<Row> {
  yield await startingIdle(bench)
  yield await installing(bench)
}

async function startingIdle({ signal }: Bench): Promise<Row> {
  await using box = await sandbox({ 'empty.ts': '' })
  const modelsDir = box.path('models')
  for (const job of jobNames) {
    mkdirSync(join(modelsDir, job), { recursive: true })
    writeFileSync(join(modelsDir, job, `${job}.onnx`), onnxModel())
  }
  const start = (...script: string[]) =>
    elapsedMs(() => runProgram([process.execPath, '--import', 'tsx', ...script], signal, { cwd: root }))
  const subjects = {
    ours: () => start('tasks.ts', '--models-dir', modelsDir),
    empty: () => start(box.path('empty.ts')),
  }
  await inTurns(2, signal, subjects) // takes the models into their manifests, and fills tsx's cache
  const { ours, empty } = await inTurns(21, signal, subjects)
  return {
    what: 'a start with all models valid',
    ours: median(ours),
    beside: { what: 'an empty file by `node --import tsx`', value: median(empty) },
    format: formatMs,
    aim: { atMost: 1.4, of: 'ratio' },
  }
}

async function installing({ signal }: Bench): Promise<Row> {
  await using box = await sandbox()
  for (const name of ['package.json', 'package-lock.json', '.npmrc']) {
    copyFileSync(join(root, name), box.path(name))
  }
  // It is a package of this project, and brings tsx.
  const loader = 'lib/system/tsx'
  cpSync(join(root, loader), box.path(loader), {
    recursive: true,
    filter: path => basename(path) !== 'node_modules',
  })
  const quiet = ['--no-audit', '--no-fund']
  await runProgram(['npm', 'ci', '--omit=dev', ...quiet], signal, { cwd: box.dir })
  return {
    what: 'installed by `npm ci --omit=dev`',
    ours: ((await checkUsage(box.path('node_modules'))) + (await checkUsage(box.path(loader)))) / MIB,
    format: mib => `${mib.toFixed(1)} MiB`,
    aim: { atMost: 40, of: 'ours' },
  }
}
