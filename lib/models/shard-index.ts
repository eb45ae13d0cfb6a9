import { once } from 'node:events'
import { posix } from 'node:path'
import { Worker } from 'node:worker_threads'
import * as v from 'valibot'
import { TrainerError } from '../errors.ts'
import { readPlain, reasonOf } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'

/** An index has an entry for each tensor of a model. */
const MAX_BYTES = 32 * 2 ** 20
/** To parse a larger one takes so long that it is done aside. */
const MOST_INLINE = 2 ** 18
/** Many times an index of the largest size. */
const MOST_HEAP_MB = 512

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
    const shards = await shardsIn(folder, index, signal)
    for (const shard of shards) {
      await slice.giveWay(signal)
      if (published.has(posix.join(posix.dirname(index), shard))) continue
      throw new TrainerError(
        'training-failed',
        `Cannot publish ${index}: it names ${shard}, which is not among the models of this training; ` +
          'let the training write it, and models name it',
      )
    }
  }
}

async function shardsIn(folder: string, index: string, signal?: AbortSignal): Promise<Set<string>> {
  try {
    const text = readPlain(folder, index, MAX_BYTES)
    if (text.length > MOST_INLINE) return await parseAside(text, signal)
    const { success, output } = v.safeParse(indexSchema, JSON.parse(text))
    return new Set(success ? Object.values(output.weight_map) : [])
  } catch (error) {
    signal?.throwIfAborted()
    if (!(error instanceof SyntaxError)) reasonOf(error)
    return new Set()
  }
}

/** Does the same as the schema; it is a text because a thread of a bundle has no files of its own. */
const PARSE = `
const { parentPort, workerData } = require('node:worker_threads')
let shards = []
try {
  const { weight_map: map } = JSON.parse(workerData)
  const values = typeof map === 'object' && map !== null && !Array.isArray(map) ? Object.values(map) : []
  if (values.every(value => typeof value === 'string')) shards = [...new Set(values)]
} catch {}
parentPort.postMessage(shards)`

/** Parse an index in a thread of its own, which takes seconds. One that takes more memory than that may have says nothing. */
async function parseAside(text: string, signal?: AbortSignal): Promise<Set<string>> {
  const limits = { maxOldGenerationSizeMb: MOST_HEAP_MB }
  const worker = new Worker(PARSE, { eval: true, workerData: text, execArgv: [], resourceLimits: limits })
  try {
    const [shards] = await once(worker, 'message', { signal })
    return new Set(shards as string[])
  } catch {
    signal?.throwIfAborted()
    return new Set()
  } finally {
    void worker.terminate() // a text that is being parsed is parsed to its end
  }
}
