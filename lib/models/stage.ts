import { link, mkdir, rename, rm } from 'node:fs/promises'
import { join, posix, relative } from 'node:path'
import { isErrno, TrainerError } from '../errors.ts'
import { foldersIn } from '../layout.ts'
import { folderOf, inspectPublished, namesOf } from '../models.ts'
import type { JobName } from '../quotas.ts'
import { copyDurably, makeFolderDurably, syncFile, syncFolder } from '../system/durable.ts'
import { reasonOf } from '../system/plain-file.ts'
import { describeFile, knownEntry } from './compare.ts'
import { listGenerations, nextGenerationDir, publishedDirOf } from './generations.ts'
import { isOnnx, judgeModel, type Model } from './judge.ts'
import {
  composeManifest,
  MANIFEST,
  type Manifest,
  type ManifestEntry,
  readManifest,
  writeManifest,
} from './manifest.ts'
import { relocate } from './relocate.ts'
import { assertShards } from './shard-index.ts'
import { folderMode, formerMode, lookAt, share } from './sharing.ts'
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

/** A file on its way into a generation: the names that it has there and had before, and what is in it. */
type Arrival = { name: string; original: string; entry: ManifestEntry }

/**
 * Make the next generation of what a training has left in `work/`: its models with their external data, what an
 * operator's own models are of the current generation, and the manifest, everything durable. Nothing that is published
 * changes.
 *
 * External data that the training called as it did the last time, with new content, gets a name of its own, and its model
 * says so: under one flat name a reader could get the old model and the new data.
 *
 * @throws {TrainerError} `training-failed` if a model has changed since it was judged, or its place is taken; or the
 * system's error. The files of the training may be gone then
 */
export async function stageModels(
  jobDir: string,
  job: JobName,
  models: Model[],
  { globs, trainedAt, seconds, reported }: TrainingFacts,
): Promise<Staged> {
  const publishedDir = publishedDirOf(jobDir)
  const previous = readManifest(publishedDir)
  const judged = await Promise.all(models.map(({ name }) => judgeAgain(foldersIn(jobDir).workDir, name)))
  assertShards(
    foldersIn(jobDir).workDir,
    judged.flatMap(model => namesOf(foldersIn(jobDir).workDir, model)),
  )
  const dir = await openNext(jobDir)
  const readable = (path: string, name: string) =>
    share(jobDir, path, formerMode(publishedDir, previous, name))
  const arrivals = await moveIn(jobDir, dir, judged, globs, readable)
  const adopted = await carryOver(publishedDir, dir, previous, arrivals)
  const names = models.map(({ name }) => name)
  const renamed = arrivals.filter(({ name, original }) => name !== original)
  const isAgain = previous !== undefined && isOldContent(arrivals, previous)
  const trained_at = (isAgain && timeOf(previous)) || trainedAt.toISOString()
  const manifest = composeManifest({
    job,
    globs,
    models: [...names, ...adopted.models],
    entries: new Map([...arrivals.map(({ name, entry }) => [name, entry] as const), ...adopted.entries]),
    metadata: { version: trained_at, ...reported, trained_at, training_seconds: seconds },
    renamed: Object.fromEntries(renamed.map(({ name, original }) => [name, original])),
    adopted: [...adopted.entries.keys()],
  })
  await closeNext(jobDir, dir, manifest)
  return { dir, manifest, isAgain }
}

/** Has the training made what is published already, byte for byte? Such a model is no younger for it. */
function isOldContent(arrivals: Arrival[], { files }: Manifest): boolean {
  return arrivals.every(({ name, entry }) => files[name] === entry.sha256)
}

function timeOf({ metadata }: Manifest): string | undefined {
  return typeof metadata.trained_at === 'string' ? metadata.trained_at : undefined
}

/**
 * Make the next generation of files that are in place already: a first one of what was published without generations, or
 * one with an operator's own models.
 *
 * @param entries the files by name; each is linked from the folder of the model that it belongs to
 * @throws the system's error
 */
export async function stageLinks(jobDir: string, models: Model[], manifest: Manifest): Promise<Staged> {
  const dir = await openNext(jobDir)
  for (const model of models) {
    const folder = folderOf(model)
    for (const name of namesOf(folder, model)) await linkIn(folder, dir, name)
  }
  await closeNext(jobDir, dir, manifest)
  return { dir, manifest, isAgain: true }
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

async function openNext(jobDir: string): Promise<string> {
  const { generationsDir } = foldersIn(jobDir)
  const dir = nextGenerationDir(jobDir)
  await makeFolderDurably(generationsDir)
  share(jobDir, generationsDir, folderMode(jobDir))
  await rm(dir, { recursive: true, force: true })
  await mkdir(dir)
  return dir
}

async function closeNext(jobDir: string, dir: string, manifest: Manifest): Promise<void> {
  const path = join(dir, MANIFEST)
  await writeManifest(path, manifest)
  share(jobDir, path, lookAt(join(publishedDirOf(jobDir), MANIFEST))?.mode)
  await syncFile(path)
  const folders = new Set([dir])
  for (const name of Object.keys(manifest.files)) {
    for (let at = posix.dirname(name); at !== '.'; at = posix.dirname(at)) folders.add(join(dir, at))
  }
  for (const folder of folders) {
    share(jobDir, folder, folderMode(jobDir))
    await syncFolder(folder)
  }
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

/** Move models and their external data into the next generation, external data first. */
async function moveIn(
  jobDir: string,
  dir: string,
  models: Model[],
  globs: string[],
  makeReadable: (path: string, name: string) => void,
): Promise<Arrival[]> {
  const { workDir } = foldersIn(jobDir)
  const modelNames = models.map(({ name }) => name)
  const files = [...new Set(models.flatMap(model => namesOf(workDir, model)))]
  const sealed = new Map<string, ManifestEntry>()
  for (const name of files) {
    makeReadable(join(workDir, name), name)
    sealed.set(name, await seal(workDir, name))
  }
  const taken = await namesTaken(jobDir, globs)
  const arrivals: Arrival[] = []
  for (const name of files.filter(it => !modelNames.includes(it))) {
    const entry = sealed.get(name)!
    const isTaken = taken.has(name) && taken.get(name) !== entry.sha256
    arrivals.push({ name: isTaken ? freeName(jobDir, name, files) : name, original: name, entry })
  }
  const newNames = new Map(arrivals.map(({ name, original }) => [original, name]))
  const written: Arrival[] = []
  for (const model of models) {
    const { name } = model
    if (taken.get(name) !== undefined && taken.get(name) !== sealed.get(name)!.sha256) {
      throw new TrainerError(
        'training-failed',
        `Cannot publish ${name}: it is external data of the published model, and a reader would get half of each; ` +
          'let the training give it another name',
      )
    }
    const moved = relocationsOf(workDir, model, newNames)
    if (moved.size) {
      await makeParents(dir, name)
      await relocate(join(workDir, name), join(dir, name), moved)
      makeReadable(join(dir, name), name)
      await syncFile(join(dir, name))
      await rm(join(workDir, name))
      written.push({ name, original: name, entry: await describeFile(dir, name) })
    } else written.push({ name, original: name, entry: sealed.get(name)! })
  }
  for (const { name, original } of [...arrivals, ...written]) {
    if (!lookAt(join(workDir, original))) continue // a model that has been written anew
    await makeParents(dir, name)
    await rename(join(workDir, original), join(dir, name))
  }
  return [...arrivals, ...written]
}

/** Make a file durable, and describe it. */
async function seal(workDir: string, name: string): Promise<ManifestEntry> {
  try {
    await syncFile(join(workDir, name))
  } catch (error) {
    // Drop the file: a second fsync would succeed without the data that this one has lost.
    await rm(join(workDir, name), { force: true })
    throw error
  }
  return describeFile(workDir, name)
}

/**
 * The names of external data that a reader of the published models may ask for, with the content that it expects: the
 * names that the trainings gave it, too. Data of a model that is not valid is nobody's: nothing loads it.
 */
async function namesTaken(jobDir: string, globs: string[]): Promise<Map<string, string>> {
  const { valid, manifest } = await inspectPublished(jobDir, globs)
  const taken = new Map<string, string>()
  for (const model of valid) {
    const folder = folderOf(model)
    for (const name of namesOf(folder, model)) {
      if (name === model.name) continue
      const { sha256 } = knownEntry(folder, name, manifest) ?? (await describeFile(folder, name))
      taken.set(name, sha256)
      const original = manifest?.metadata.renamed?.[name]
      if (original) taken.set(original, sha256)
    }
  }
  return taken
}

/** Name external data after the generation that it is for: `core.onnx.data` becomes `core.onnx-7.data`. */
function freeName(jobDir: string, name: string, files: string[]): string {
  const { dir, ext, name: stem } = posix.parse(name)
  for (let number = nextNumber(jobDir); ; number++) {
    const candidate = posix.join(dir, `${stem}-${number}${ext}`)
    if (!files.includes(candidate) && !lookAt(join(jobDir, candidate))) return candidate
  }
}

/** Map the locations that a model states to their new ones, where those differ. */
function relocationsOf(workDir: string, model: Model, newNames: Map<string, string>): Map<string, string> {
  const folder = posix.dirname(model.name)
  return new Map(
    model.references.flatMap(path => {
      const original = relative(workDir, path)
      const name = newNames.get(original)
      if (name === undefined || name === original) return []
      return [[posix.relative(folder, original), posix.relative(folder, name)] as const]
    }),
  )
}

/** Take along an operator's own models, which no training made: those of the same name are replaced. */
async function carryOver(
  publishedDir: string,
  dir: string,
  previous: Manifest | undefined,
  arrivals: Arrival[],
): Promise<{ models: string[]; entries: Map<string, ManifestEntry> }> {
  const { models = [], adopted = [] } = previous?.metadata ?? {}
  const arrived = new Set(arrivals.map(({ name }) => name))
  const entries = new Map<string, ManifestEntry>()
  const kept: string[] = []
  for (const name of models) {
    // One of several opaque files is a part of something, and that has been trained anew.
    if (!adopted.includes(name) || arrived.has(name) || !isOnnx(name)) continue
    const model = await Promise.resolve(name)
      .then(it => judgeModel(publishedDir, it))
      .catch(error => void reasonOf(error))
    const files = model && namesOf(publishedDir, model)
    if (!files || files.some(file => arrived.has(file))) continue
    for (const file of files) {
      await linkIn(publishedDir, dir, file)
      entries.set(file, await describeFile(dir, file))
    }
    kept.push(name)
  }
  return { models: kept, entries }
}

/** Give a file a name in a generation; one that may not have another, such as another user's, is copied. */
async function linkIn(folder: string, dir: string, name: string): Promise<void> {
  await makeParents(dir, name)
  const [from, to] = [join(folder, name), join(dir, name)]
  if (lookAt(to)) return
  try {
    await link(from, to)
    await syncFile(to)
  } catch (error) {
    if (!isErrno(error, 'EPERM', 'EMLINK')) throw error
    await copyDurably(from, to)
  }
}

/** Make the folders on the way to a name. (Node's `recursive: true` hides why the system refuses one.) */
async function makeParents(dir: string, name: string): Promise<void> {
  const parts = name.split('/').slice(0, -1)
  for (const index of parts.keys()) {
    try {
      await mkdir(join(dir, ...parts.slice(0, index + 1)))
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
    }
  }
}

/** The number of the generation that is being made: larger than any that is there. */
export function nextNumber(jobDir: string): number {
  return (listGenerations(jobDir).at(-1)?.number ?? 0) + 1
}
