import { join } from 'node:path'
import type { JobName } from '../quotas.ts'
import { replaceDurably, storageError } from '../system/durable.ts'
import { makeCurrent } from './commit.ts'
import { describeModels } from './compare.ts'
import { currentGeneration, publishedDirOf } from './generations.ts'
import { folderOf, type Model, withoutData } from './judge.ts'
import {
  composeManifest,
  MANIFEST,
  type Manifest,
  type ManifestEntry,
  readManifest,
  writeManifest,
} from './manifest.ts'
import { discard, nextNumber } from './next-generation.ts'
import { adoptFlat, hasLinks, removeFormer } from './publish-flat.ts'
import { removeDropped } from './put-flat-names.ts'
import { lookAt, share } from './sharing.ts'
import { stageLinks } from './stage.ts'

/**
 * Take valid models into a generation and its manifest as they are on disk: an operator's own, published ones whose times
 * have changed, or what was published before there were generations. The reported metadata is kept only if no content has
 * changed. A file with other content counts as adopted from now on, until a training replaces it.
 *
 * @throws {TrainerError} `storage`
 */
export async function adopt(jobDir: string, job: JobName, found: Model[], globs: string[]): Promise<void> {
  const models = withoutData(found)
  const names = models.map(({ name }) => name)
  try {
    const publishedDir = publishedDirOf(jobDir)
    const previous = readManifest(publishedDir)
    const entries = await describeModels(models, previous)
    const isKnown = Array.from(entries).every(([name, { sha256 }]) => previous?.files[name] === sha256)
    const current = currentGeneration(jobDir)
    const isInPlace = current && models.every(model => folderOf(model) === current.dir)
    const manifest = composeManifest({
      job,
      globs,
      models: names,
      entries,
      metadata: isKnown ? previous!.metadata : {},
      renamed: previous?.metadata.renamed ?? {},
      relocated: relocatedAmong(entries, previous),
      replaces: isInPlace ? previous?.metadata.replaces : current?.number,
      adopted: adoptedAmong(entries, previous),
    })
    if (isInPlace) {
      await removeDropped(jobDir, current, manifest)
      await replaceManifest(jobDir, join(current.dir, MANIFEST), manifest)
      await makeCurrent(jobDir, current.number)
      return
    }
    if (!(await hasLinks(jobDir))) {
      await adoptFlat(jobDir, manifest, previous)
      return
    }
    await stageLinks(jobDir, models, manifest)
    await makeCurrent(jobDir, nextNumber(jobDir), manifest)
    if (!current && previous) await removeFormer(jobDir, previous, manifest)
  } catch (cause) {
    await discard(jobDir, cause)
    throw storageError(`Cannot take ${names.join(', ')} into the manifest of ${jobDir}`, cause)
  }
}

/** Readers find the old one or the new one, through a power cut too. */
async function replaceManifest(jobDir: string, path: string, manifest: Manifest): Promise<void> {
  const mode = lookAt(path)?.mode
  await replaceDurably(path, async temporary => {
    await writeManifest(temporary, manifest)
    share(jobDir, temporary, mode)
  })
}

/** Tell the SHA-256 that the training gave a model, of those that are still as they were published. */
function relocatedAmong(
  entries: Map<string, ManifestEntry>,
  manifest: Manifest | undefined,
): Record<string, string> {
  const known = Object.entries(manifest?.metadata.relocated ?? {})
  return Object.fromEntries(known.filter(([name]) => entries.get(name)?.sha256 === manifest?.files[name]))
}

/** List the files that no training here made: new to the manifest in name or content, or adopted before. */
function adoptedAmong(entries: Map<string, ManifestEntry>, manifest: Manifest | undefined): string[] {
  const isAdopted = ([name, { sha256 }]: [string, ManifestEntry]) =>
    manifest?.files[name] !== sha256 || manifest.metadata.adopted.includes(name)
  return [...entries].filter(isAdopted).map(([name]) => name)
}
