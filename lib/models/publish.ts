import { rm } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { TrainerError } from '../errors.ts'
import { foldersIn } from '../layout.ts'
import { inspectPublished, namesOf } from '../models.ts'
import type { JobName } from '../quotas.ts'
import { storageError, syncFile } from '../system/durable.ts'
import { reasonOf } from '../system/plain-file.ts'
import { describeFile, knownEntry } from './compare.ts'
import { judgeModel, type Model } from './judge.ts'
import {
  commitManifest,
  composeManifest,
  type Manifest,
  type ManifestEntry,
  planManifest,
  readManifest,
} from './manifest.ts'
import { assertReplaceable, moveIntoPlace } from './move-into-place.ts'
import { metricsOf, type Reported } from './trainer-metadata.ts'

/** Facts about a training, for the manifest. */
export type TrainingFacts = {
  /** The job's `models` globs. */
  globs: string[]
  trainedAt: Date
  seconds: number
  reported: Reported
}

/** A published model. */
export type Published = { path: string; bytes: number; sha256: string; metrics: Record<string, number> }

/**
 * Publish valid models of `work/` with their external data. They replace published models of the same name; other
 * models stay published. At every moment a reader finds each old model or the new one, whole:
 *
 * 1. Every file is made durable.
 * 2. The manifest of the new state is written beside the current one.
 * 3. The files are renamed into place, external data first, and that manifest last.
 *
 * A crash before the end of step 2 has changed nothing that is published; after it `recover()` finishes the publication.
 * External data never replaces other content, because a reader of the published model would get half of each.
 *
 * @throws {TrainerError} `training-failed` if the files do not fit beside the published ones; `storage` if the system
 * refuses a step. Either leaves the published files unchanged, unless one of them had already been replaced; then the
 * publication is finished as after a crash
 */
export async function publish(
  jobDir: string,
  job: JobName,
  models: Model[],
  { globs, trainedAt, seconds, reported }: TrainingFacts,
): Promise<Published[]> {
  const names = models.map(({ name }) => name)
  try {
    const arrivals = await sealModels(foldersIn(jobDir).workDir, names)
    const published = await inspectPublished(jobDir, globs)
    const kept = published.valid.filter(({ name }) => !arrivals.has(name))
    const keptData = kept.flatMap(({ references }) => references.map(path => relative(jobDir, path)))
    const ownData = [...arrivals.keys()].filter(name => !names.includes(name))
    await assertReplaceable(jobDir, arrivals, new Set([...ownData, ...keptData]))

    const previous = readManifest(jobDir)
    const keptEntries = await describeModels(jobDir, kept, previous)
    const entries = new Map([...arrivals, ...keptEntries])
    const trained_at = trainedAt.toISOString()
    const manifest = composeManifest({
      job,
      globs,
      models: [...names, ...kept.map(({ name }) => name)],
      entries,
      metadata: { version: trained_at, ...reported, trained_at, training_seconds: seconds },
      superseded: supersededBy(entries, previous),
      adopted: adoptedAmong(keptEntries, previous),
    })
    await planManifest(jobDir, manifest)
    await moveIntoPlace(jobDir, [...arrivals.keys()])

    const metrics = metricsOf(reported)
    return names.map(name => {
      const { bytes, sha256 } = arrivals.get(name)!
      return { path: join(jobDir, name), bytes, sha256, metrics }
    })
  } catch (cause) {
    throw storageError(`Cannot publish ${names.join(', ')} in ${jobDir}`, cause)
  }
}

/**
 * Take valid models into the manifest as they are on disk: an operator's own, or published ones whose times have
 * changed. The reported metadata is kept only if no content has changed. A file with other content counts as adopted
 * from now on, until a training replaces it.
 *
 * @throws {TrainerError} `storage`
 */
export async function adopt(jobDir: string, job: JobName, models: Model[], globs: string[]): Promise<void> {
  const names = models.map(({ name }) => name)
  try {
    const previous = readManifest(jobDir)
    const entries = await describeModels(jobDir, models, previous)
    const isKnown = Array.from(entries).every(([name, { sha256 }]) => previous?.files[name] === sha256)
    const manifest = composeManifest({
      job,
      globs,
      models: names,
      entries,
      metadata: isKnown ? previous!.metadata : {},
      superseded: supersededBy(entries, previous),
      adopted: adoptedAmong(entries, previous),
    })
    await planManifest(jobDir, manifest)
    await commitManifest(jobDir)
  } catch (cause) {
    throw storageError(`Cannot take ${names.join(', ')} into the manifest of ${jobDir}`, cause)
  }
}

/** Judge models once more, and make them and their external data durable. Lists external data first. */
async function sealModels(work: string, models: string[]): Promise<Map<string, ManifestEntry>> {
  const entries = new Map<string, ManifestEntry>()
  const judged = await Promise.all(models.map(name => judgeAgain(work, name)))
  const names = judged.flatMap(model => namesOf(work, model))
  for (const name of new Set(names)) {
    try {
      await syncFile(join(work, name))
    } catch (error) {
      // Drop the file: a second fsync would succeed without the data that this one has lost.
      await rm(join(work, name), { force: true })
      throw error
    }
    entries.set(name, await describeFile(work, name))
  }
  return entries
}

async function judgeAgain(work: string, name: string): Promise<Model> {
  try {
    return await judgeModel(work, name)
  } catch (cause) {
    throw new TrainerError('training-failed', `Cannot publish ${join(work, name)}: it ${reasonOf(cause)}`, {
      cause,
    })
  }
}

/**
 * Describe published models and their external data. Reads only files that the manifest does not describe as they are.
 */
async function describeModels(
  jobDir: string,
  models: Model[],
  manifest: Manifest | undefined,
): Promise<Map<string, ManifestEntry>> {
  const entries = new Map<string, ManifestEntry>()
  for (const name of models.flatMap(model => namesOf(jobDir, model))) {
    entries.set(name, knownEntry(jobDir, name, manifest) ?? (await describeFile(jobDir, name)))
  }
  return entries
}

/** List the files that no training here made: new to the manifest in name or content, or adopted before. */
function adoptedAmong(entries: Map<string, ManifestEntry>, manifest: Manifest | undefined): string[] {
  const isAdopted = ([name, { sha256 }]: [string, ManifestEntry]) =>
    manifest?.files[name] !== sha256 || manifest.metadata.adopted.includes(name)
  return [...entries].filter(isAdopted).map(([name]) => name)
}

/** List the external data that no model needs once `entries` are published. The next start removes it. */
function supersededBy(entries: Map<string, ManifestEntry>, manifest: Manifest | undefined): string[] {
  if (!manifest) return []
  const { models, superseded } = manifest.metadata
  // A manifest that names no models was not written here; nothing of it is known to be external data.
  const data = models.length ? Object.keys(manifest.files).filter(name => !models.includes(name)) : []
  return [...new Set([...superseded, ...data])].filter(name => !entries.has(name))
}
