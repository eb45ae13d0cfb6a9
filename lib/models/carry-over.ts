import { reasonOf } from '../system/plain-file.ts'
import { describeFile } from './compare.ts'
import { isOnnx, judgeModel, namesOf } from './judge.ts'
import type { Manifest, ManifestEntry } from './manifest.ts'
import type { Arrival } from './move-in.ts'
import { linkIn } from './next-generation.ts'

/**
 * Take along an operator's own models, which no training made: those of the same name are replaced.
 *
 * @throws the reason of `signal`, which is looked at between files
 */
export async function carryOver(
  publishedDir: string,
  dir: string,
  previous: Manifest | undefined,
  arrivals: Arrival[],
  signal?: AbortSignal,
): Promise<{ models: string[]; entries: Map<string, ManifestEntry> }> {
  const { models = [] } = previous?.metadata ?? {}
  const adopted = new Set(previous?.metadata.adopted)
  const arrived = new Set(arrivals.map(({ name }) => name))
  const entries = new Map<string, ManifestEntry>()
  const kept: string[] = []
  for (const name of models) {
    // One of several opaque files is a part of something, and that has been trained anew.
    if (!adopted.has(name) || arrived.has(name) || !isOnnx(name)) continue
    const model = await Promise.resolve(name)
      .then(it => judgeModel(publishedDir, it, signal))
      .catch(error => void reasonOf(error))
    const files = model && namesOf(publishedDir, model)
    if (!files || files.some(file => arrived.has(file))) continue
    for (const file of files) {
      signal?.throwIfAborted()
      await linkIn(publishedDir, dir, file)
      entries.set(file, await describeFile(dir, file))
    }
    kept.push(name)
  }
  return { models: kept, entries }
}
