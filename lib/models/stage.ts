import { join } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { JobName } from '../quotas.ts'
import { foldersIn } from '../settings/layout.ts'
import { reasonOf, statPlain } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { carryOver } from './carry-over.ts'
import { currentGeneration, publishedDirOf } from './generations.ts'
import { folderOf, judgeModel, type Model, namesOf } from './judge.ts'
import { assertRoomFor, composeManifest, contentOf, type Manifest, readManifest } from './manifest.ts'
import { type Arrival, type MoveOptions, moveIn } from './move-in.ts'
import { closeNext, linkIn, openNext } from './next-generation.ts'
import { assertShards } from './shard-index.ts'
import { formerMode, share } from './sharing.ts'
import type { Reported } from './trainer-metadata.ts'

/** Facts about a training, for the manifest. */
export type TrainingFacts = {
  /** The job's `models` globs. */
  globs: string[]
  trainedAt: Date
  seconds: number
  reported: Reported
}

/** A generation that is complete and durable, and not current yet. */
export type Staged = {
  dir: string
  manifest: Manifest
  /** Is it, byte for byte, what is published already? */
  isAgain: boolean
}

/**
 * Make the next generation of what a training has left in `work/`: its models with their external data, what an
 * operator's own models are of the current generation, and the manifest, everything durable. Nothing that is published
 * changes.
 *
 * External data that the training called as it did the last time, with new content, gets a name of its own, and its model
 * says so: under one flat name a reader could get the old model and the new data.
 *
 * @throws {TrainerError} `training-failed` if a model has changed since it was judged, its place is taken, or there are
 * more files than a manifest has room for; the system's error; what `makeRoom` throws; or the reason of `signal`, which is
 * looked at between files. The files of the training may be gone then
 */
export async function stageModels(
  jobDir: string,
  job: JobName,
  models: Model[],
  { globs, trainedAt, seconds, reported }: TrainingFacts,
  options: MoveOptions = {},
): Promise<Staged> {
  const { signal } = options
  const { workDir } = foldersIn(jobDir)
  const publishedDir = publishedDirOf(jobDir)
  const previous = readManifest(publishedDir)
  const judged = await judgeAgain(workDir, models, signal)
  const files = [...new Set(judged.flatMap(model => namesOf(workDir, model)))]
  const names = models.map(({ name }) => name)
  const compose = (
    arrivals: Arrival[],
    trained_at = trainedAt.toISOString(),
    adopted: Awaited<ReturnType<typeof carryOver>> = { models: [], entries: new Map() },
  ) => {
    const renamed = arrivals.filter(({ name, original }) => name !== original)
    const relocated = arrivals.filter(({ entry, trained }) => entry.sha256 !== trained)
    return composeManifest({
      job,
      globs,
      models: [...names, ...adopted.models],
      entries: new Map([...arrivals.map(({ name, entry }) => [name, entry] as const), ...adopted.entries]),
      metadata: { version: trained_at, ...reported, trained_at, training_seconds: seconds },
      renamed: Object.fromEntries(renamed.map(({ name, original }) => [name, original])),
      relocated: Object.fromEntries(relocated.map(({ name, trained }) => [name, trained])),
      replaces: currentGeneration(jobDir)?.number,
      adopted: [...adopted.entries.keys()],
    })
  }
  await assertRoomFor(files.length, async () => compose(await foresee(workDir, files, signal)))
  await assertShards(workDir, files, signal)
  const dir = await openNext(jobDir)
  const readable = (path: string, name: string) =>
    share(jobDir, path, formerMode(publishedDir, previous, name))
  const arrivals = await moveIn(jobDir, dir, judged, files, globs, readable, options)
  const adopted = await carryOver(publishedDir, dir, previous, arrivals, signal)
  const isAgain = previous !== undefined && isOldContent(arrivals, previous)
  const manifest = compose(arrivals, (isAgain && timeOf(previous)) || undefined, adopted)
  await closeNext(jobDir, dir, manifest, signal)
  return { dir, manifest, isAgain }
}

/** Has the training made what is published already, byte for byte? Such a model is no younger for it. */
function isOldContent(arrivals: Arrival[], previous: Manifest): boolean {
  const known = new Set(contentOf(previous).map(({ original, sha256 }) => `${sha256} ${original}`))
  return arrivals.every(({ original, trained }) => known.has(`${trained} ${original}`))
}

function timeOf({ metadata }: Manifest): string | undefined {
  return typeof metadata.trained_at === 'string' ? metadata.trained_at : undefined
}

/**
 * Make the next generation of files that are in place already: a first one of what was published without generations, or
 * one with an operator's own models.
 *
 * @throws the system's error
 */
export async function stageLinks(jobDir: string, models: Model[], manifest: Manifest): Promise<void> {
  const dir = await openNext(jobDir)
  for (const model of models) {
    const folder = folderOf(model)
    for (const name of namesOf(folder, model)) await linkIn(folder, dir, name)
  }
  await closeNext(jobDir, dir, manifest)
}

async function judgeAgain(work: string, models: Model[], signal?: AbortSignal): Promise<Model[]> {
  const slice = new Slice()
  const judged: Model[] = []
  for (const { name } of models) {
    await slice.giveWay(signal)
    judged.push(await expectPlain(join(work, name), () => judgeModel(work, name, signal)))
  }
  return judged
}

/** Describe files before they are read and made durable: with all but their hashes, under the names that they have. */
async function foresee(work: string, names: string[], signal?: AbortSignal): Promise<Arrival[]> {
  const slice = new Slice()
  const arrivals: Arrival[] = []
  for (const name of names) {
    await slice.giveWay(signal)
    const { size, mtimeNs } = await expectPlain(join(work, name), () => statPlain(work, name))
    const entry = { sha256: '0'.repeat(64), bytes: Number(size), mtimeNs: String(mtimeNs) }
    arrivals.push({ name, original: name, entry, trained: entry.sha256 })
  }
  return arrivals
}

/** @throws {TrainerError} `training-failed` if a file has changed since it was judged */
async function expectPlain<T>(path: string, look: () => T | Promise<T>): Promise<T> {
  try {
    return await look()
  } catch (cause) {
    throw new TrainerError('training-failed', `Cannot publish ${path}: it ${reasonOf(cause)}`, { cause })
  }
}
