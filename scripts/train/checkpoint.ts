import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { deserialize, serialize } from 'node:v8'
import { replaceFile } from '../../lib/system/durable.ts'
import type { Mlp } from './mlp.ts'
import type { Random } from './random.ts'

/** Everything that the next epoch depends on. */
export type TrainingState = {
  /** Text that names model, data and seed; a checkpoint with another identity is useless. */
  readonly identity: string
  /** Number of epochs done. */
  epoch: number
  readonly network: Mlp
  readonly random: Random
}

type Content = Pick<TrainingState, 'identity' | 'epoch'> &
  Pick<Mlp, 'steps' | 'weights' | 'moment1' | 'moment2'> & { random: Uint32Array }

const digestBytes = 32

/** Encode a checkpoint: the SHA-256 of the state, then the state. */
export function encodeCheckpoint({ identity, epoch, network, random }: TrainingState): Buffer {
  const { steps, weights, moment1, moment2 } = network
  const content: Content = { identity, epoch, steps, weights, moment1, moment2, random: random.state }
  const body = serialize(content)
  return Buffer.concat([digestOf(body), body])
}

/** Write `epoch-N.checkpoint` into `dir`, then delete all but the newest `keep`. */
export async function saveCheckpoint(dir: string, state: TrainingState, keep: number): Promise<void> {
  await replaceFile(join(dir, `epoch-${state.epoch}.checkpoint`), encodeCheckpoint(state))
  for (const name of listCheckpoints(dir).slice(keep)) remove(dir, name)
}

/**
 * Bring `state` to the newest good checkpoint of this training in `dir`; without one it stays as it is. Newer
 * checkpoints that are damaged, or another training's, are deleted: their names will be used again.
 *
 * @param passedOver called for each of those, with the reason
 */
export function resume(
  dir: string,
  state: TrainingState,
  passedOver: (name: string, reason: string) => void,
): void {
  for (const name of listCheckpoints(dir)) {
    const content = decode(join(dir, name))
    if (content?.identity === state.identity) {
      state.epoch = content.epoch
      state.random.state.set(content.random)
      state.network.steps = content.steps
      for (const part of ['weights', 'moment1', 'moment2'] as const) state.network[part].set(content[part])
      return
    }
    passedOver(name, content ? 'it belongs to another training' : 'it is damaged')
    remove(dir, name)
  }
}

/** Delete every checkpoint in `dir`, half-written ones too. */
export function removeCheckpoints(dir: string): void {
  for (const name of readdirSync(dir).filter(isCheckpoint)) remove(dir, name)
}

/** Is this the name of a checkpoint, or of one that is half-written? */
export function isCheckpoint(name: string): boolean {
  return /^epoch-\d+\.checkpoint(\.tmp)?$/.test(name)
}

/** List the names of checkpoints, newest first. */
function listCheckpoints(dir: string): string[] {
  const epochs = readdirSync(dir).map(name =>
    Number(/^epoch-(\d+)\.checkpoint$/.exec(name)?.[1] ?? Number.NaN),
  )
  return epochs
    .filter(epoch => !Number.isNaN(epoch))
    .sort((a, b) => b - a)
    .map(epoch => `epoch-${epoch}.checkpoint`)
}

function decode(path: string): Content | undefined {
  try {
    const bytes = readFileSync(path)
    const body = bytes.subarray(digestBytes)
    return digestOf(body).equals(bytes.subarray(0, digestBytes)) ? (deserialize(body) as Content) : undefined
  } catch {
    return undefined // an unreadable checkpoint, or one that has just gone, is as useless as a damaged one
  }
}

function digestOf(body: Uint8Array): Buffer {
  return createHash('sha256').update(body).digest()
}

function remove(dir: string, name: string): void {
  rmSync(join(dir, name), { force: true, recursive: true })
}
