import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import {
  removeCheckpoints,
  resume,
  saveCheckpoint,
  type TrainingState,
} from '../../scripts/train/checkpoint.ts'
import { Mlp } from '../../scripts/train/mlp.ts'
import { Random } from '../../scripts/train/random.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('resume() brings back everything that the next epoch depends on', async () => {
  await using box = await sandbox()
  const state = newState()
  trainOneEpoch(state)
  await saveCheckpoint(box.dir, state, 2)
  const other = newState()

  resume(box.dir, other, unexpected)

  trainOneEpoch(state)
  trainOneEpoch(other)
  assert.is(other.epoch, 2)
  assert.is(other.network.steps, state.network.steps)
  assert.equal(other.network.weights, state.network.weights)
  assert.equal(other.network.moment2, state.network.moment2)
  assert.equal(other.random.state, state.random.state)
})

test('saveCheckpoint() keeps the newest, counting epochs as numbers, and leaves no temporary file', async () => {
  await using box = await sandbox({ 'notes.txt': 'not ours' })
  const state = newState()

  for (state.epoch = 8; state.epoch <= 11; state.epoch++) await saveCheckpoint(box.dir, state, 2)

  assert.equal(readdirSync(box.dir).sort(), ['epoch-10.checkpoint', 'epoch-11.checkpoint', 'notes.txt'])
})

for (const [damage, spoil] of Object.entries({
  truncated: (bytes: Buffer) => bytes.subarray(0, bytes.length - 1),
  empty: () => Buffer.alloc(0),
  garbage: () => Buffer.from('not a checkpoint at all, but longer than a digest'),
  flipped: (bytes: Buffer) => {
    const copy = Buffer.from(bytes)
    copy[copy.length >> 1]! ^= 1
    return copy
  },
})) {
  test(`resume() passes over a checkpoint that is ${damage} for the next older one`, async () => {
    await using box = await sandbox()
    const state = newState()
    for (let epoch = 1; epoch <= 2; epoch++) {
      trainOneEpoch(state)
      await saveCheckpoint(box.dir, state, 2)
    }
    const newest = box.path('epoch-2.checkpoint')
    writeFileSync(newest, spoil(readFileSync(newest)))
    const other = newState()
    const passedOver: string[] = []

    resume(box.dir, other, (name, reason) => passedOver.push(`${name}: ${reason}`))

    assert.is(other.epoch, 1)
    assert.equal(passedOver, ['epoch-2.checkpoint: it is damaged'])
    assert.equal(readdirSync(box.dir), ['epoch-1.checkpoint'])
  })
}

test('resume() does not go on from the checkpoint of another training', async () => {
  await using box = await sandbox()
  const foreign = newState('another seed')
  trainOneEpoch(foreign)
  await saveCheckpoint(box.dir, foreign, 2)
  const state = newState()
  const reasons: string[] = []

  resume(box.dir, state, (_, reason) => reasons.push(reason))

  assert.equal(reasons, ['it belongs to another training'])
  assert.is(state.epoch, 0)
  assert.equal(state.network.weights, newState().network.weights)
})

test('resume() never takes a half-written checkpoint for one, and removeCheckpoints() takes it along', async () => {
  await using box = await sandbox()
  const state = newState()
  trainOneEpoch(state)
  await saveCheckpoint(box.dir, state, 2)
  const complete = readFileSync(box.path('epoch-1.checkpoint'))
  writeFileSync(box.path('epoch-2.checkpoint.tmp'), complete)

  resume(box.dir, state, unexpected)
  const { epoch } = state
  removeCheckpoints(box.dir)

  assert.is(epoch, 1)
  assert.equal(readdirSync(box.dir), [])
})

function newState(identity = 'this training'): TrainingState {
  const random = Random.seeded(5, 'checkpoint test')
  return { identity, epoch: 0, network: new Mlp([2, 4, 2], random), random }
}

function trainOneEpoch(state: TrainingState): void {
  const rows = Float32Array.from({ length: 200 }, (_, index) => Math.sin(index))
  const labels = Uint8Array.from({ length: 100 }, (_, row) => (rows[row * 2]! > rows[row * 2 + 1]! ? 1 : 0))
  state.network.trainEpoch({ rows, labels, width: 2 }, state.random, 0.01)
  state.epoch++
}

function unexpected(name: string, reason: string): never {
  throw new Error(`${name}: ${reason}`)
}

test.run()
