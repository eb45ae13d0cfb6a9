import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { NEXT_CURRENT } from '../settings/layout.ts'
import { storageError } from '../system/durable.ts'
import { assertFolder, readPlain, reasonOf, statPlain, UnusableFile } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { describeFile } from './compare.ts'
import { findModels } from './find.ts'
import { flatNamesOf } from './flat-names.ts'
import { type Generation, isSameFile, listGenerations, publishedDirOf, recogniserFor } from './generations.ts'
import { judgeModel, namesOf } from './judge.ts'
import {
  contradictionsIn,
  MANIFEST,
  MANIFEST_MAX_BYTES,
  NEXT_MANIFEST,
  parseManifest,
  readManifest,
} from './manifest.ts'

/** A job's published files compared with their manifest. Paths are relative to its current generation, or to its folder. */
export type Verification = {
  /** Files with the content that the manifest states; the models among them are also whole in structure. */
  verified: { path: string; bytes: number; sha256: string }[]
  /** The paths of verified files that no training here made. */
  adopted: string[]
  /** Every other file; `reason` is the end of a sentence that begins with the path. */
  differences: { path: string; reason: string }[]
}

const MAX_ROUNDS = 5
const UNLISTED = `is not among the files in ${MANIFEST}`

/**
 * Check every published file of a job: each has the SHA-256 that the manifest states, each model is whole in structure,
 * the manifest lists every model and its external data, and its metadata fits. Reads every file whole.
 *
 * Needs no lock: while a publication goes on, differences are checked again.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed, or looked into
 */
export async function verifyPublished(jobDir: string, globs: string[]): Promise<Verification> {
  try {
    if (existsSync(jobDir)) assertFolder(jobDir)
  } catch (error) {
    return { verified: [], adopted: [], differences: [{ path: jobDir, reason: reasonOf(error) }] }
  }
  try {
    return await verifyUntilSettled(jobDir, globs)
  } catch (cause) {
    throw storageError(`Cannot verify what is published in ${jobDir}`, cause)
  }
}

async function verifyUntilSettled(jobDir: string, globs: string[]): Promise<Verification> {
  for (let round = 1; ; round++) {
    const dir = publishedDirOf(jobDir)
    const manifest = readText(dir)
    const verification = await verifyAgainst(manifest, dir, globs)
    if (dir !== jobDir) verification.differences.push(...(await flatDifferences(jobDir, dir, globs)))
    if (!verification.differences.length) return verification
    const unfinished = [NEXT_MANIFEST, NEXT_CURRENT].filter(name => existsSync(join(jobDir, name)))
    const isSame = publishedDirOf(jobDir) === dir && readText(dir).text === manifest.text
    if ((isSame && !unfinished.length) || round === MAX_ROUNDS) {
      const reason = 'is left over from a publication that was cut off; the next run finishes it'
      for (const path of unfinished) verification.differences.push({ path, reason })
      return verification
    }
    await delay(100)
  }
}

/**
 * Check every file that the manifest of a generation lists, in the way of {@link verifyPublished}.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed; the reason of `signal`
 */
export async function verifyGeneration({ dir }: Generation, signal?: AbortSignal): Promise<Verification> {
  return verifyAgainst(readText(dir), dir, [], signal)
}

/**
 * Name the flat names that are not the files of the current generation, for readers of those find something else, and the
 * models in the job's folder that no generation has.
 */
async function flatDifferences(
  jobDir: string,
  dir: string,
  globs: string[],
): Promise<Verification['differences']> {
  const manifest = readManifest(dir)
  const flat = manifest ? flatNamesOf(manifest).files : []
  const changed = flat.filter(name => !isSameFile(join(dir, name), join(jobDir, name)))
  const { valid, rejected } = await findModels(jobDir, globs)
  const found = [...valid, ...rejected].map(({ path }) => relative(jobDir, path))
  const generations = listGenerations(jobDir)
  const foreign = found.filter(
    name =>
      !flat.includes(name) && !generations.some(it => isSameFile(join(it.dir, name), join(jobDir, name))),
  )
  return [
    ...changed.map(path => ({ path, reason: flatReason(jobDir, path) })),
    ...foreign.map(path => ({ path, reason: UNLISTED })),
  ]
}

function flatReason(jobDir: string, name: string): string {
  try {
    statPlain(jobDir, name, recogniserFor(jobDir))
    return 'is not the file of the current generation'
  } catch (error) {
    const reason = reasonOf(error)
    return reason === 'is missing' ? `${reason}; the next run puts it back` : reason
  }
}

async function verifyAgainst(
  { text, reason }: { text: string; reason: string },
  jobDir: string,
  globs: string[],
  signal?: AbortSignal,
): Promise<Verification> {
  const manifest = parseManifest(text)
  const files = new Map(Object.entries(manifest?.files ?? {}))
  const verification: Verification = { verified: [], adopted: [], differences: [] }
  if (!files.size) verification.differences.push({ path: MANIFEST, reason })

  const { valid, rejected } = await findModels(jobDir, globs)
  const found = [...valid, ...rejected].map(({ path }) => relative(jobDir, path))
  const models = new Set([...(manifest?.metadata.models ?? []), ...found])
  const names = new Set([...files.keys(), ...found])
  const needed = new Set<string>()
  const slice = new Slice()
  for (const name of names) {
    await slice.giveWay(signal)
    try {
      const content = await checkFile(jobDir, name, files.get(name))
      if (models.has(name))
        for (const it of namesOf(jobDir, await judgeModel(jobDir, name, signal))) needed.add(it)
      verification.verified.push({ path: name, ...content })
      if (manifest?.metadata.adopted.includes(name)) verification.adopted.push(name)
    } catch (error) {
      verification.differences.push({ path: name, reason: reasonOf(error) })
    }
  }
  for (const name of needed) {
    if (!names.has(name)) verification.differences.push({ path: name, reason: UNLISTED })
  }
  const bytesByName = new Map(verification.verified.map(({ path, bytes }) => [path, bytes]))
  for (const reason of manifest ? contradictionsIn(manifest, bytesByName) : []) {
    verification.differences.push({ path: MANIFEST, reason })
  }
  return verification
}

async function checkFile(
  jobDir: string,
  name: string,
  listed: string | undefined,
): Promise<{ bytes: number; sha256: string }> {
  if (listed === undefined) throw new UnusableFile(UNLISTED)
  const { bytes, sha256 } = await describeFile(jobDir, name)
  if (sha256 === listed) return { bytes, sha256 }
  throw new UnusableFile(`differs: its SHA-256 is ${sha256}, but ${listed} was published`)
}

/** Read the manifest's text, empty if it cannot be read, and the fault to name if it lists no files. */
function readText(jobDir: string): { text: string; reason: string } {
  try {
    return {
      text: readPlain(jobDir, MANIFEST, MANIFEST_MAX_BYTES, recogniserFor(jobDir)),
      reason: 'is not a manifest of any files',
    }
  } catch (error) {
    return { text: '', reason: reasonOf(error) }
  }
}
