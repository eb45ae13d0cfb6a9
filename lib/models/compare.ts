import { closeSync, lstatSync } from 'node:fs'
import { join } from 'node:path'
import { openPlain, reasonOf, sha256, statPlain } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { recogniserFor } from './generations.ts'
import { folderOf, isOnnx, type Model, namesOf } from './judge.ts'
import type { Manifest, ManifestEntry } from './manifest.ts'

/** How a file on disk relates to a manifest; `touched` means the same content with another time. */
export type Comparison = 'same' | 'touched' | 'differs' | 'unlisted'

/**
 * Compare a file with a manifest: by size and modification time where both agree, else by its SHA-256.
 *
 * @throws {UnusableFile} if it is missing or not a plain file
 */
export async function compareFile(
  folder: string,
  name: string,
  manifest: Manifest | undefined,
): Promise<Comparison> {
  const listed = manifest?.files[name]
  if (!listed) return 'unlisted'
  if (knownEntry(folder, name, manifest)) return 'same'
  const listedBytes = manifest.metadata.sizes[name]
  if (
    listedBytes !== undefined &&
    listedBytes !== Number(statPlain(folder, name, recogniserFor(folder)).size)
  )
    return 'differs'
  return (await describeFile(folder, name)).sha256 === listed ? 'touched' : 'differs'
}

/** Return the manifest's entry for a file, if the file's size and modification time agree with it. */
export function knownEntry(
  folder: string,
  name: string,
  manifest: Manifest | undefined,
): ManifestEntry | undefined {
  const sha256 = manifest?.files[name]
  if (!sha256) return undefined
  const { size, mtimeNs } = statPlain(folder, name, recogniserFor(folder))
  const entry = { sha256, bytes: Number(size), mtimeNs: String(mtimeNs) }
  const { sizes, mtimes_ns } = manifest.metadata
  return sizes[name] === entry.bytes && mtimes_ns[name] === entry.mtimeNs ? entry : undefined
}

/** Describe a file for a manifest. Reads the whole file. */
export async function describeFile(folder: string, name: string): Promise<ManifestEntry> {
  const { fd, stats } = openPlain(folder, name, recogniserFor(folder))
  try {
    return { sha256: await sha256(fd), bytes: Number(stats.size), mtimeNs: String(stats.mtimeNs) }
  } finally {
    closeSync(fd)
  }
}

/** Describe a model's files. Reads only those that the manifest does not describe as they are. */
export async function describeModels(
  models: Model[],
  manifest: Manifest | undefined,
): Promise<Map<string, ManifestEntry>> {
  const entries = new Map<string, ManifestEntry>()
  for (const model of models) {
    const folder = folderOf(model)
    for (const name of namesOf(folder, model)) {
      entries.set(name, knownEntry(folder, name, manifest) ?? (await describeFile(folder, name)))
    }
  }
  return entries
}

/**
 * @returns the comparison of each file of a model by name, or the reason why the model is not valid after all
 * @throws the reason of `signal`
 */
export async function compareModel(
  model: Model,
  manifest: Manifest | undefined,
  signal?: AbortSignal,
): Promise<Map<string, Comparison> | string> {
  const folder = folderOf(model)
  const comparisons = new Map<string, Comparison>()
  const slice = new Slice()
  try {
    for (const name of namesOf(folder, model)) {
      await slice.giveWay(signal)
      comparisons.set(name, await compareFile(folder, name, manifest))
    }
  } catch (error) {
    return reasonOf(error)
  }
  const comparison = comparisons.get(model.name)
  if (!isOnnx(model.name) && comparison === 'differs') return 'is not what was published'
  if (!isOnnx(model.name) && comparison === 'unlisted') return 'is in no manifest'
  // The graph is the one that was published: its data was made with it, and nobody's own is shorter.
  if (comparison === 'same' || comparison === 'touched') {
    for (const [name, compared] of comparisons) {
      if (compared !== 'differs') continue
      const [bytes, publishedBytes] = [lstatSync(join(folder, name)).size, manifest!.metadata.sizes[name]]
      if (bytes < (publishedBytes ?? 0))
        return `needs ${name}, which is damaged: it has ${bytes} of the ${publishedBytes} bytes that were published`
    }
  }
  return comparisons
}
