import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import getFolderSize from 'get-folder-size'
import { Journal } from '../../lib/run/journal.ts'
import { measure } from '../../lib/storage/measure.ts'
import { checkUsage, enforceLimit } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { sandbox } from '../support/sandbox.ts'
import { elapsedMs, inTurns, median, runProgram } from './rounds.ts'
import { type Bench, formatMs, type Row } from './table.ts'

const FILES_A_FOLDER = 1000
const PRUNED_FILES = 50_000

/** Measuring a folder, and pruning one. */
export async function* measureStorage(bench: Bench): AsyncGenerator<Row> {
  yield* measuring(bench)
  yield* pruning(bench)
}

async function* measuring({ signal }: Bench): AsyncGenerator<Row> {
  await using box = await sandbox()
  let made = 0
  for (const count of [1000, 10_000, 100_000, 200_000]) {
    makeFiles(box.dir, made, count, '')
    made = count
    const subjects = {
      ours: () => elapsedMs(() => checkUsage(box.dir)),
      du: () => elapsedMs(() => runProgram(['du', '-s', box.dir], signal)),
      npm: () => elapsedMs(() => getFolderSize.strict(box.dir)),
    }
    await inTurns(1, signal, subjects) // fills the kernel's caches
    const { ours, du, npm } = await inTurns(count < 100_000 ? 9 : 5, signal, subjects)
    const what = `measure ${count.toLocaleString('en')} files`
    const row = { what, ours: median(ours), format: formatMs }
    const isLargest = count === 200_000
    yield {
      ...row,
      beside: { what: '`du -s`', value: median(du) },
      ...(isLargest && { aim: { atMost: 2, of: 'ratio' } }),
    }
    yield { ...row, beside: { what: 'npm get-folder-size', value: median(npm) } }
  }
}

/**
 * Pruned files have been on the disk for long, as a rule: the row with the aim. Files just written have no blocks on the
 * disk yet, which to free is most of the work; there the events and the looks at each file weigh most.
 */
async function* pruning({ signal }: Bench): AsyncGenerator<Row> {
  for (const isOnDisk of [true, false]) {
    const make = async (dir: string) => {
      makeFiles(dir, 0, PRUNED_FILES, '.checkpoint')
      if (isOnDisk) await runProgram(['sync'], signal)
      await checkUsage(dir) // fills the kernel's caches
    }
    const { ours, rm } = await inTurns(3, signal, {
      ours: () => pruneAll(make),
      rm: () => removeAll(make, signal),
    })
    yield {
      what: `prune ${PRUNED_FILES.toLocaleString('en')} checkpoints${isOnDisk ? '' : ' just written'}, each an event in the journal`,
      ours: median(ours),
      beside: { what: '`rm -rf`', value: median(rm) },
      format: formatMs,
      ...(isOnDisk && { aim: { atMost: 1.5, of: 'ratio' } }),
    }
  }
}

async function pruneAll(make: (dir: string) => Promise<void>): Promise<number> {
  await using box = await sandbox({ 'state/.keep': 0 })
  const dir = box.path('core')
  await make(dir)
  const journal = new Journal(box.path('state'))
  const { usedBytes, prunable } = await measure(dir, { keep: [] })
  const limitMb = (usedBytes - prunable.reduce((sum, { bytes }) => sum + bytes, 0)) / MIB

  const ms = await elapsedMs(async () => {
    await enforceLimit(dir, limitMb, {
      keep: [],
      onPrune: pruned => journal.emit({ event: 'storage.prune', job: 'core', ...pruned }),
    })
    journal.close()
  })
  const left = (await measure(dir, { keep: [] })).prunable.length
  if (left) throw new Error(`${left} checkpoints are left`)
  return ms
}

async function removeAll(make: (dir: string) => Promise<void>, signal: AbortSignal): Promise<number> {
  await using box = await sandbox()
  const dir = box.path('core')
  await make(dir)
  const ms = await elapsedMs(() => runProgram(['rm', '-rf', dir], signal))
  if (existsSync(dir)) throw new Error(`${dir} is left`)
  return ms
}

/** Small files number `from` to `to` in folders of a thousand. */
export function makeFiles(dir: string, from: number, to: number, suffix: string, content = 'x'): void {
  for (let index = from; index < to; index++) {
    const folder = join(dir, `part-${Math.floor(index / FILES_A_FOLDER)}`)
    if (index % FILES_A_FOLDER === 0) mkdirSync(folder, { recursive: true })
    writeFileSync(`${folder}/${index}${suffix}`, content)
  }
}
