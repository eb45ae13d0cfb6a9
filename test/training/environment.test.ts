import { readFileSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { type Rig, trainerRig } from '../support/rig.ts'
import { test } from '../support/test.ts'

const MIB = 2 ** 20

/** Prints what it is told, by both ways, and uses so many MiB of it besides a model of 12. */
const usesMost = `
console.log('told', maxMb, 'of', process.env.RANSOMEYE_QUOTA_MB, ...process.argv.slice(2, 4))
fs.writeFileSync(dir + '/core.pkl', Buffer.alloc(12 * 2 ** 20, 1))
for (let n = 0; n < Math.floor(maxMb * 0.95) - 12; n++) { fs.appendFileSync(dir + '/scratch', Buffer.alloc(2 ** 20)); await sleep(5) }
await sleep(300)
fs.rmSync(dir + '/scratch')`

const outputOf = (rig: Rig) => readFileSync(rig.path('models', '.trainer', 'core.log'), 'utf8')
/** The last training's line: the log keeps those of the runs before. */
const toldIn = (rig: Rig) =>
  outputOf(rig)
    .match(/^told .*$/gm)
    ?.at(-1)

test('a training is told what it may use beside what is published, and can use it', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 40, models: ['*.pkl'], trainer: usesMost } })

  const first = await rig.run(['core', '--json'])
  const atFirst = toldIn(rig)
  const second = await rig.run(['core', '--retrain', '--json'])

  assert.equal([first.exitCode, second.exitCode], [0, 0])
  assert.is(atFirst, 'told 40 of 40 --max-disk-mb 40')
  assert.is(toldIn(rig), 'told 28 of 40 --max-disk-mb 28')
})

test('a training is told of what an operator has put beside it, and not of what it has left itself', async () => {
  const trainer = `
console.log('told', maxMb)
fs.writeFileSync(dir + '/dataset', Buffer.alloc(10 * 2 ** 20))
fs.writeFileSync(dir + '/core.pkl', 'model')`
  await using rig = await trainerRig({ core: { maxDiskMb: 40, models: ['*.pkl'], trainer } })
  await rig.run(['core'])
  writeFileSync(rig.path('models', 'core', 'notes'), Buffer.alloc(5 * MIB))

  await rig.run(['core', '--retrain'])

  assert.is(toldIn(rig), 'told 35')
})

test('the whole quota is that of the run', async () => {
  const trainer = `console.log('told', maxMb, process.env.RANSOMEYE_QUOTA_MB); fs.writeFileSync(dir + '/core.pkl', 'model')`
  await using rig = await trainerRig({ core: { maxDiskMb: 40, models: ['*.pkl'], trainer } })

  await rig.run(['--max-disk-mb', '30'], { script: 'scripts/core.ts' })

  assert.is(toldIn(rig), 'told 30 30')
})

test.run()
