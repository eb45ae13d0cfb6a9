import { posix } from 'node:path'
import * as v from 'valibot'
import { TrainerError } from '../errors.ts'
import { readPlain, reasonOf } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'

/** An index has an entry for each tensor of a model. */
const MAX_BYTES = 64 * 2 ** 20

const indexSchema = v.object({ weight_map: v.record(v.string(), v.string()) })

/**
 * Assert that the files that indexes of shards name (`*.index.json`, as safetensors has them) are published with them. An
 * index of another form says nothing.
 *
 * @param names everything that is published, below `folder`
 * @throws {TrainerError} `training-failed` with the first file that is missing; the reason of `signal`
 */
export async function assertShards(folder: string, names: string[], signal?: AbortSignal): Promise<void> {
  const slice = new Slice()
  const published = new Set(names)
  for (const index of names.filter(name => name.endsWith('.index.json'))) {
    await slice.giveWay(signal)
    for (const shard of shardsIn(folder, index)) {
      if (published.has(posix.join(posix.dirname(index), shard))) continue
      throw new TrainerError(
        'training-failed',
        `Cannot publish ${index}: it names ${shard}, which is not among the models of this training; ` +
          'let the training write it, and models name it',
      )
    }
  }
}

function shardsIn(folder: string, index: string): Set<string> {
  try {
    const { success, output } = v.safeParse(indexSchema, JSON.parse(readPlain(folder, index, MAX_BYTES)))
    return new Set(success ? Object.values(output.weight_map) : [])
  } catch (error) {
    if (!(error instanceof SyntaxError)) reasonOf(error)
    return new Set()
  }
}
