import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import type { FakeTrainer } from '../support/rig.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { createdRig, hasLoopDevices, type VolumeRig } from '../support/volume-rig.ts'

const mounting = skipUnless(inSweep, hasLoopDevices, 'needs root and a loop device')
const MIB = 2 ** 20

/** Writes a checkpoint, and a model of as many MiB, slowly enough to be watched; its content differs with each training. */
const trains: FakeTrainer = `
const { letter, modelMb, checkpointMb } = JSON.parse(fs.readFileSync('orders.json', 'utf8'))
for (const [name, mb] of [['1.checkpoint', checkpointMb], ['core.pkl', modelMb]])
  for (let n = 0; n < mb; n++) { fs.appendFileSync(dir + '/' + name, Buffer.alloc(2 ** 20, letter)); await sleep(30) }
fs.writeFileSync(dir + '/metadata.json', JSON.stringify({ trained_on: letter }))`

type Orders = { letter: string; modelMb: number; checkpointMb: number }

async function train(
  rig: VolumeRig,
  orders: Orders,
): Promise<{ exitCode: number | null; events: TrainerEvent[] }> {
  writeFileSync(rig.path('orders.json'), JSON.stringify(orders))
  return rig.run(['core', '--retrain', '--json'])
}

const currentIn = (rig: VolumeRig) => readlinkSync(join(rig.folder, 'current'))
const prunedIn = (events: TrainerEvent[]) =>
  events.flatMap(it => (it.event === 'storage.prune' ? [it.rule] : []))

async function rigWithModels(...letters: string[]): Promise<VolumeRig> {
  const rig = await createdRig({ maxDiskMb: 32, trainer: trains, models: ['*.pkl'], keepGenerations: 3 })
  for (const letter of letters)
    assert.is((await train(rig, { letter, modelMb: 6, checkpointMb: 1 })).exitCode, 0)
  return rig
}

mounting(
  'on a volume a generation is published beside the current one, and the kernel is its bound',
  async () => {
    await using rig = await rigWithModels('a')

    const { exitCode, events } = await train(rig, { letter: 'b', modelMb: 6, checkpointMb: 1 })

    const started = events.find(it => it.event === 'job.start')
    assert.is(exitCode, 0)
    assert.match(started?.event === 'job.start' ? started.guarantee : '', /^kernel/)
    assert.is(currentIn(rig), 'generations/2')
    assert.equal(readdirSync(join(rig.folder, 'generations')), ['1', '2'])
    const [flat, current] = ['core.pkl', 'current/core.pkl'].map(it => statSync(join(rig.folder, it)).ino)
    assert.is(flat, current)
  },
)

mounting('on a volume earlier generations make room for a training before its checkpoints do', async () => {
  // Three models of 6 MiB leave 12 of 31 MiB: a checkpoint of 4 and a model of 10 do not fit beside them.
  await using rig = await rigWithModels('a', 'b', 'c')

  const { exitCode, events } = await train(rig, { letter: 'd', modelMb: 10, checkpointMb: 4 })

  assert.is(exitCode, 0, events.map(it => JSON.stringify(it)).join('\n'))
  assert.is(currentIn(rig), 'generations/4')
  // Before the training the checkpoint of the finished one goes.
  const rules = prunedIn(events.slice(events.findIndex(it => it.event === 'train.start')))
  const [firstCheckpoint, firstSuperseded] = [rules.indexOf('*.checkpoint'), rules.indexOf('superseded')]
  assert.ok(firstSuperseded >= 0, rules.join())
  assert.ok(firstCheckpoint < 0 || firstCheckpoint > firstSuperseded, rules.join())
  assert.ok(readFileSync(join(rig.folder, 'current/core.pkl')).equals(Buffer.alloc(10 * MIB, 'd')))
})

mounting(
  'on a volume that cannot hold both, the current generation stays, whole, and the reason is told',
  async () => {
    await using rig = await rigWithModels()
    assert.is((await train(rig, { letter: 'a', modelMb: 18, checkpointMb: 1 })).exitCode, 0)

    const { exitCode, events } = await train(rig, { letter: 'b', modelMb: 18, checkpointMb: 1 })

    const exceeded = events.find(it => it.event === 'quota.exceeded')
    assert.is(exitCode, 2)
    assert.match(exceeded?.event === 'quota.exceeded' ? exceeded.message : '', /^Model too large for quota/)
    assert.is(currentIn(rig), 'generations/1')
    assert.ok(readFileSync(join(rig.folder, 'core.pkl')).equals(Buffer.alloc(18 * MIB, 'a')))
    assert.is((await rig.run(['core', '--json'])).exitCode, 0)
  },
)

mounting(
  'on a volume a rollback makes an earlier generation current, and a training may take the room of the later one',
  async () => {
    await using rig = await rigWithModels('a', 'b')

    const back = await rig.run(['core', '--json'], { script: 'scripts/rollback.ts' })
    const afterRollback = readFileSync(join(rig.folder, 'core.pkl'))
    const same = await train(rig, { letter: 'b', modelMb: 6, checkpointMb: 1 })
    const other = await train(rig, { letter: 'c', modelMb: 18, checkpointMb: 1 })

    assert.equal([back.exitCode, same.exitCode, other.exitCode], [0, 4, 0])
    assert.ok(afterRollback.equals(Buffer.alloc(6 * MIB, 'a')))
    assert.is(currentIn(rig), 'generations/3')
    // The later one of before is known by its manifest alone: it is older now.
    assert.ok(prunedIn(other.events).includes('superseded'))
  },
)

test.run()
