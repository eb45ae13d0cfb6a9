/** Kill whole runs with SIGKILL at random moments: node --import tsx test/support/kill-sweep.ts [points=1000] [seed] */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { isEntry } from '../../lib/settings/script.ts'
import { onnxModel } from './onnx-fixture.ts'
import { survivors, trainerRig } from './rig.ts'
import { until } from './sandbox.ts'

const models = [onnxModel({ producer: 'one' }), onnxModel({ producer: 'two' })]

/**
 * A training that passes through everything in about a second: it outgrows its quota, is frozen and pruned, and
 * publishes one of two models. It holds a lock of its own, so that a second one at the same time shows.
 */
const trainer = `
const fd = fs.openSync(dir + '/alone', 'a')
if (spawnSync('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', fd] }).status !== 0) fs.writeFileSync(dir + '/overlap', '')
for (let n = 0; n < 12; n++) { fs.writeFileSync(dir + '/epoch-' + n + '.checkpoint', Buffer.alloc(2 ** 20)); await sleep(20) }
fs.copyFileSync('model-' + (Date.now() % 2) + '.onnx', dir + '/core.onnx')`

/** The words that a run prints before each kind of moment, and for how long after them the kill may come. */
const moments: [RegExp, number][] = [
  [/^/, 2000], // anywhere, the start included
  [/paused to count/, 30], // frozen
  [/pruned/, 15], // pruning
  [/training ended/, 60], // checking and publishing
]

export type Sweep = { kills: Record<string, number>; faults: string[] }

/**
 * Kill a run at each of `points` moments and start the next at once.
 *
 * @returns how many kills came at each kind of moment, and everything that went wrong
 */
export async function sweep(points: number, seed: number): Promise<Sweep> {
  const random = generator(seed)
  const result: Sweep = { kills: {}, faults: [] }
  await using rig = await trainerRig({ core: { maxDiskMb: 8, trainer } })
  for (const [index, bytes] of models.entries()) writeFileSync(rig.path(`model-${index}.onnx`), bytes)
  const published = rig.path('models', 'core', 'core.onnx')
  const fault = (what: string) => result.faults.push(`seed ${seed}: ${what}`)

  let killed = 0
  const endings: Promise<unknown>[] = []
  const killsAt = (moment: RegExp) => result.kills[String(moment)] ?? 0
  for (let point = 0; killed < points; point++) {
    // The one that was hit least often: a run may have ended before it is killed.
    const [moment, jitterMs] = moments.reduce((a, b) => (killsAt(b[0]) < killsAt(a[0]) ? b : a))
    if (point > 10 * points) throw new Error(`cannot kill a run at ${moment}`)
    const run = rig.start(['core', '--retrain'])
    const ended = run.ended.then(({ exitCode }) => exitCode)
    const reached = until(
      `point ${point}: ${moment}`,
      () => moment.test(run.output()) || run.child.exitCode !== null,
    )
    await reached.catch(error => fault(String(error)))
    await delay(random() * jitterMs)
    if (run.child.exitCode === null) {
      killed++
      result.kills[String(moment)] = killsAt(moment) + 1
    } else if (run.child.exitCode !== 0)
      fault(`point ${point}: ended with ${run.child.exitCode}: ${run.output()}`)
    const left = [...new Set([...survivors(rig), run.pid])]
    run.child.kill('SIGKILL')
    await ended
    // Not waited for: the next run starts while the kernel is still ending this one.
    const gone = until(
      `point ${point}: the end of ${left}`,
      () => !survivors(rig).some(pid => left.includes(pid)),
      1000,
    )
    endings.push(gone.catch(error => fault(String(error))))
    if (existsSync(published) && !models.some(bytes => bytes.equals(readFileSync(published)))) {
      fault(`point ${point}: a torn model`)
    }
  }
  await Promise.all(endings)
  if (existsSync(rig.path('models', 'core', 'work', 'overlap'))) fault('two trainings at once')
  const { exitCode, stdout } = await rig.run(['core', '--retrain'])
  if (exitCode !== 0) fault(`the start after the last kill ended with ${exitCode}: ${stdout}`)
  return result
}

/** Mulberry32: the same moments for the same seed. */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

if (isEntry(import.meta)) {
  const [points = '1000', seed = String(Date.now() % 1e6)] = process.argv.slice(2)
  const result = await sweep(Number(points), Number(seed))
  console.log(result)
  process.exitCode = result.faults.length ? 1 : 0
}
