import { join, posix } from 'node:path'
import { Slice } from '../system/slice.ts'
import { describeFile, knownEntry } from './compare.ts'
import { isSameFile, listGenerations } from './generations.ts'
import { inspectPublished } from './inspect.ts'
import { folderOf, namesOf } from './judge.ts'
import { readManifest } from './manifest.ts'
import { nextNumber } from './next-generation.ts'
import { lookAt } from './sharing.ts'

/**
 * The names of external data that a reader of the published models may ask for, with the content that it expects: the
 * names that the trainings gave it, too. Data of a model that is not valid is nobody's: nothing loads it.
 *
 * @throws the reason of `signal`
 */
export async function namesTaken(
  jobDir: string,
  globs: string[],
  signal?: AbortSignal,
): Promise<Map<string, string>> {
  const { valid, manifest } = await inspectPublished(jobDir, globs, signal)
  const slice = new Slice()
  const taken = new Map<string, string>()
  for (const model of valid) {
    const folder = folderOf(model)
    for (const name of namesOf(folder, model)) {
      if (name === model.name) continue
      await slice.giveWay(signal)
      const { sha256 } = knownEntry(folder, name, manifest) ?? (await describeFile(folder, name))
      taken.set(name, sha256)
      const original = manifest?.metadata.renamed?.[name]
      if (original) taken.set(original, sha256)
    }
  }
  return taken
}

/**
 * Has somebody put a file of their own where external data would have its flat name? What is ours there, whole or damaged,
 * is known by its generation, or by the manifest of before there were any.
 */
export function isOthersPlace(jobDir: string, name: string): boolean {
  const path = join(jobDir, name)
  if (!lookAt(path)?.isFile()) return false
  const isOurs = listGenerations(jobDir).some(({ dir }) => isSameFile(join(dir, name), path))
  const { files = {}, metadata } = readManifest(jobDir) ?? {}
  return !isOurs && !Object.hasOwn(files, name) && !metadata?.superseded.includes(name)
}

/** Name external data after the generation that it is for: `core.onnx.data` becomes `core.onnx-7.data`. */
export function freeName(jobDir: string, name: string, files: string[]): string {
  const { dir, ext, name: stem } = posix.parse(name)
  for (let number = nextNumber(jobDir); ; number++) {
    const candidate = posix.join(dir, `${stem}-${number}${ext}`)
    if (!files.includes(candidate) && !lookAt(join(jobDir, candidate))) return candidate
  }
}
