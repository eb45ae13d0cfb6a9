import { rename, rm } from 'node:fs/promises'
import { join, posix, relative } from 'node:path'
import { TrainerError } from '../errors.ts'
import { foldersIn } from '../settings/layout.ts'
import { syncFile } from '../system/durable.ts'
import { UnusableFile } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { describeFile } from './compare.ts'
import { freeName, isOthersPlace, namesTaken } from './data-names.ts'
import type { Model } from './judge.ts'
import type { ManifestEntry } from './manifest.ts'
import { makeParents } from './next-generation.ts'
import { relocate } from './relocate.ts'
import { lookAt } from './sharing.ts'

/**
 * A file on its way into a generation: the names that it has there and had before, and what is in it. `trained` is the SHA-256
 * that the training gave it: a model that is written anew has another.
 */
export type Arrival = { name: string; original: string; entry: ManifestEntry; trained: string }

export type MoveOptions = {
  signal?: AbortSignal | undefined
  /** Called before a model is written anew beside itself, with its bytes; throws where they do not fit. */
  makeRoom?: ((bytes: number) => Promise<void>) | undefined
}

/**
 * Move models and their external data into the next generation, external data first.
 *
 * @param files all their names, in that order
 * @throws what `makeRoom` throws; the reason of `signal`, which is looked at between files
 */
export async function moveIn(
  jobDir: string,
  dir: string,
  models: Model[],
  files: string[],
  globs: string[],
  makeReadable: (path: string, name: string) => void,
  { signal, makeRoom }: MoveOptions,
): Promise<Arrival[]> {
  const { workDir } = foldersIn(jobDir)
  const slice = new Slice()
  const modelNames = new Set(models.map(({ name }) => name))
  const sealed = new Map<string, ManifestEntry>()
  for (const name of files) {
    await slice.giveWay(signal)
    makeReadable(join(workDir, name), name)
    sealed.set(name, await seal(workDir, name))
  }
  const taken = await namesTaken(jobDir, globs, signal)
  const arrivals: Arrival[] = []
  for (const name of files.filter(it => !modelNames.has(it))) {
    await slice.giveWay(signal)
    const entry = sealed.get(name)!
    const isTaken = taken.has(name) ? taken.get(name) !== entry.sha256 : isOthersPlace(jobDir, name)
    arrivals.push({
      name: isTaken ? freeName(jobDir, name, files) : name,
      original: name,
      entry,
      trained: entry.sha256,
    })
  }
  const newNames = new Map(arrivals.map(({ name, original }) => [original, name]))
  const written: Arrival[] = []
  for (const model of models) {
    await slice.giveWay(signal)
    const { name } = model
    if (taken.get(name) !== undefined && taken.get(name) !== sealed.get(name)!.sha256) {
      throw new TrainerError(
        'training-failed',
        `Cannot publish ${name}: the published model has external data of that name, and a reader would get half of each; ` +
          'let the training give it another name',
      )
    }
    const entry = sealed.get(name)!
    const moved = relocationsOf(workDir, model, newNames)
    if (moved.size) {
      await makeParents(dir, name)
      await makeRoom?.(entry.bytes)
      await relocate(join(workDir, name), join(dir, name), moved, signal).catch(cause => {
        if (!(cause instanceof UnusableFile)) throw cause
        const message = `Cannot publish ${join(workDir, name)}: it ${cause.message}`
        throw new TrainerError('training-failed', message, { cause })
      })
      makeReadable(join(dir, name), name)
      await syncFile(join(dir, name))
      await rm(join(workDir, name))
      const anew = await describeFile(dir, name)
      written.push({ name, original: name, entry: anew, trained: entry.sha256 })
    } else written.push({ name, original: name, entry, trained: entry.sha256 })
  }
  for (const { name, original } of [...arrivals, ...written]) {
    await slice.giveWay(signal)
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
