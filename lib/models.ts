import { lstatSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Comparison } from './models/compare.ts'
import { judgeAll, listNames, tellRejected } from './models/find.ts'
import {
  currentGeneration,
  isSameFile,
  listGenerations,
  publishedDirOf,
  rolledBackFrom,
} from './models/generations.ts'
import { inspectPublished } from './models/inspect.ts'
import { folderOf, type Model } from './models/judge.ts'
import { MANIFEST, readManifest } from './models/manifest.ts'
import { storageError } from './system/durable.ts'

/** The day-1 check of one job. */
export type PublishedCheck = {
  /** Absolute paths of the valid models. */
  models: string[]
  /** Does the job need its training? */
  missing: boolean
  /** Tells a person why. */
  reason: string
  /** Files whose content this program did not publish, such as an operator's model. They are used and kept. */
  foreign: string[]
  /** `foreign`, plus the files that the manifest lists as adopted. */
  adopted: string[]
  /** The valid models, for `adopt()`, where the manifest does not describe them as they are; else none. */
  adopt: Model[]
}

/**
 * Are a job's published models valid? With a manifest the check stats each file and walks its structure; it hashes
 * content only where size or time differ from the manifest, as in a restored backup. Without a manifest, or with one
 * made for other globs, every valid model counts.
 *
 * A set is valid as a whole: one invalid model of the manifest makes the job's training missing. An ONNX model that is
 * whole stays valid if its content was not published here, also where it stands in the place of a flat name. An opaque
 * model is valid only as published, because nothing else vouches for it.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed, or looked into
 */
export async function checkPublished(jobDir: string, globs: string[]): Promise<PublishedCheck> {
  try {
    return await judgePublished(jobDir, globs)
  } catch (cause) {
    throw storageError(`Cannot tell what is published in ${jobDir}`, cause)
  }
}

async function judgePublished(jobDir: string, globs: string[]): Promise<PublishedCheck> {
  const { valid, rejected, comparisons, listed, manifest } = await inspectPublished(jobDir, globs)
  const missing = valid.length === 0 || (listed && rejected.length > 0)
  const isSettled = currentGeneration(jobDir) !== undefined || manifest?.metadata.flat === true
  const isOwn = valid.some(model => folderOf(model) !== publishedDirOf(jobDir))
  const described = listed && isSettled && !isOwn && [...comparisons.values()].every(it => it === 'same')
  const names = [...comparisons.keys()]
  const foreign = names.filter(name => ['differs', 'unlisted'].includes(comparisons.get(name)!))
  const adopted = names.filter(name => foreign.includes(name) || manifest?.metadata.adopted.includes(name))
  const reasons = tellRejected(rejected, path => nameOf(jobDir, path))
  if (!missing || !reasons.length) reasons.push(summariseValid(valid, comparisons, adopted))
  return {
    models: valid.map(({ path, name }) => (isSameFile(join(jobDir, name), path) ? join(jobDir, name) : path)),
    missing,
    reason: reasons.join(', '),
    foreign,
    adopted,
    adopt: missing || described ? [] : valid,
  }
}

/** Name a published file as the manifest does. */
function nameOf(jobDir: string, path: string): string {
  const publishedDir = publishedDirOf(jobDir)
  return relative(path.startsWith(`${publishedDir}/`) ? publishedDir : jobDir, path)
}

/**
 * List what must never be pruned: the current generation, the flat names of models, valid or not, the manifest and those
 * of generations that the job was rolled back from, and the external data that either names.
 *
 * @returns absolute paths: of the regular files among them, and of the folder of the current generation
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed; the caller must then prune nothing
 */
export async function publishedFiles(jobDir: string, globs: string[]): Promise<string[]> {
  const names = await listNames(jobDir, globs)
  const current = currentGeneration(jobDir)
  const listed = [MANIFEST, ...Object.keys(readManifest(current?.dir ?? jobDir)?.files ?? {}), ...names]
  const references = (await judgeAll(jobDir, names)).valid.flatMap(model => model.references)
  const manifests = rolledBackFrom(jobDir).map(({ dir }) => join(dir, MANIFEST))
  const paths = new Set([...listed.map(name => join(jobDir, name)), ...references, ...manifests])
  const files = [...paths].filter(path => lstatSync(path, { throwIfNoEntry: false })?.isFile())
  return current ? [...files, current.dir] : files
}

/**
 * List what goes before any checkpoint when there must be room: the generations before the current one, each as a whole
 * unless it shares files with that; and of those that the job was rolled back from the files, but not the manifest, by
 * which such a model is known again.
 *
 * @returns absolute paths
 */
export function supersededFiles(jobDir: string): string[] {
  const current = currentGeneration(jobDir)
  if (!current) return []
  return listGenerations(jobDir).flatMap(({ number, dir }) => {
    if (number === current.number) return []
    const names = Object.keys(readManifest(dir)?.files ?? {})
    const isShared = names.some(name => isSameFile(join(dir, name), join(current.dir, name)))
    return number < current.number && !isShared ? [dir] : names.map(name => join(dir, name))
  })
}

function summariseValid(valid: Model[], comparisons: Map<string, Comparison>, adopted: string[]): string {
  if (!valid.length) return 'no model is published'
  const names = valid.map(({ name }) => name).join(', ')
  const kinds = new Set(comparisons.values())
  if (kinds.has('differs')) return `${names} valid, not as published`
  if (kinds.has('unlisted')) return `${names} valid, not in a manifest`
  const trained = valid.filter(({ name }) => !adopted.includes(name)).map(({ name }) => name)
  const parts = [
    ...(trained.length ? [`${trained.join(', ')} as published`] : []),
    ...(adopted.length ? [`${adopted.join(', ')} as adopted, not trained here`] : []),
  ]
  return parts.join(', ')
}
