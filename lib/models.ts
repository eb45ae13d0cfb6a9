import { lstatSync, readdir } from 'node:fs'
import { join, relative } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { isErrno, messageOf, TrainerError } from './errors.ts'
import { CACHE, HOME, TMP, WORK } from './layout.ts'
import { type Comparison, compareFile } from './models/compare.ts'
import { isOnnx, isPublishable, judgeModel, type Model } from './models/judge.ts'
import { MANIFEST, type Manifest, readManifest } from './models/manifest.ts'
import { folderExists, reasonOf } from './system/plain-file.ts'

export type Findings = { valid: Model[]; rejected: { path: string; reason: string }[] }

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
 * Find the files in a folder that the job's globs call models, and judge each. `folder` is the job's folder, without
 * its `work/`, or that `work/`, without its temporary files and caches. A missing folder has no models.
 *
 * @param isCheckpoint tells of a name below `folder` whether it is a checkpoint or in one: such a file is no model
 * @throws {TrainerError} `storage` if the folder cannot be listed
 */
export async function findModels(
  folder: string,
  globs: string[],
  isCheckpoint: (name: string) => boolean = () => false,
): Promise<Findings> {
  const names = await listNames(folder, globs)
  return judgeAll(
    folder,
    names.filter(name => !isCheckpoint(name)),
  )
}

/**
 * Are a job's published models valid? With a manifest the check stats each file and walks its structure; it hashes
 * content only where size or time differ from the manifest, as in a restored backup. Without a manifest, or with one
 * made for other globs, every valid model counts.
 *
 * A set is valid as a whole: one invalid model of the manifest makes the job's training missing. An ONNX model that is
 * whole stays valid if its content was not published here. An opaque model is valid only as published, because nothing
 * else vouches for it.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed
 */
export async function checkPublished(jobDir: string, globs: string[]): Promise<PublishedCheck> {
  const { valid, rejected, comparisons, listed, manifest } = await inspectPublished(jobDir, globs)
  const missing = valid.length === 0 || (listed && rejected.length > 0)
  const described = listed && [...comparisons.values()].every(comparison => comparison === 'same')
  const names = [...comparisons.keys()]
  const foreign = names.filter(name => ['differs', 'unlisted'].includes(comparisons.get(name)!))
  const adopted = names.filter(name => foreign.includes(name) || manifest?.metadata.adopted.includes(name))
  const reasons = rejected.map(({ path, reason }) => `${relative(jobDir, path)} ${reason}`)
  if (!missing || !reasons.length) reasons.push(summariseValid(valid, comparisons, adopted))
  return {
    models: valid.map(({ path }) => path),
    missing,
    reason: reasons.join(', '),
    foreign,
    adopted,
    adopt: missing || described ? [] : valid,
  }
}

/**
 * List what must never be pruned: published models, valid or not, the manifest, and the external data that either
 * names.
 *
 * @returns absolute paths of the regular files among them
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed; the caller must then prune nothing
 */
export async function publishedFiles(jobDir: string, globs: string[] = ['*.onnx']): Promise<string[]> {
  const names = await listNames(jobDir, globs)
  const listed = [MANIFEST, ...Object.keys(readManifest(jobDir)?.files ?? {}), ...names]
  const references = (await judgeAll(jobDir, names)).valid.flatMap(model => model.references)
  const paths = new Set([...listed.map(name => join(jobDir, name)), ...references])
  return [...paths].filter(path => lstatSync(path, { throwIfNoEntry: false })?.isFile())
}

/** The published models, and how each file of the valid ones compares with the manifest. */
export type Inspection = Findings & {
  comparisons: Map<string, Comparison>
  /** Does the manifest name the models, for the same globs? */
  listed: boolean
  manifest: Manifest | undefined
}

/**
 * Inspect the published models.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed
 */
export async function inspectPublished(jobDir: string, globs: string[]): Promise<Inspection> {
  const manifest = readManifest(jobDir)
  const { models = [], model_globs } = manifest?.metadata ?? {}
  const listed = models.length > 0 && isDeepStrictEqual(model_globs, globs)
  const candidates = listed ? await judgeAll(jobDir, models) : await findModels(jobDir, globs)

  const inspection: Inspection = { ...candidates, valid: [], comparisons: new Map(), listed, manifest }
  for (const model of candidates.valid) {
    const compared = await compareModel(jobDir, model, manifest)
    if (typeof compared === 'string') inspection.rejected.push({ path: model.path, reason: compared })
    else {
      inspection.valid.push(model)
      for (const [name, comparison] of compared) inspection.comparisons.set(name, comparison)
    }
  }
  return inspection
}

/** @returns the comparison of each file of a model by name, or the reason why the model is not valid after all */
async function compareModel(
  jobDir: string,
  model: Model,
  manifest: Manifest | undefined,
): Promise<Map<string, Comparison> | string> {
  const comparisons = new Map<string, Comparison>()
  try {
    for (const name of namesOf(jobDir, model)) {
      comparisons.set(name, await compareFile(jobDir, name, manifest))
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
      const [bytes, publishedBytes] = [sizeOf(jobDir, name), manifest!.metadata.sizes[name]]
      if (bytes < (publishedBytes ?? 0))
        return `needs ${name}, which is damaged: it has ${bytes} of the ${publishedBytes} bytes that were published`
    }
  }
  return comparisons
}

function sizeOf(folder: string, name: string): number {
  return lstatSync(join(folder, name)).size
}

/** List a model's files relative to its folder, in the order to publish them: external data first. */
export function namesOf(folder: string, model: Model): string[] {
  return [...model.references.map(path => relative(folder, path)), model.name]
}

async function judgeAll(folder: string, names: string[]): Promise<Findings> {
  const findings: Findings = { valid: [], rejected: [] }
  for (const name of names) {
    try {
      findings.valid.push(await judgeModel(folder, name))
    } catch (error) {
      findings.rejected.push({ path: join(folder, name), reason: reasonOf(error) })
    }
  }
  return findings
}

async function listNames(folder: string, globs: string[]): Promise<string[]> {
  try {
    // Treat a missing folder as empty, as globby does; any other reason for not seeing it is an error.
    if (!folderExists(folder)) return []
    const { globby } = await import('globby')
    const names = await globby(globs, {
      cwd: folder,
      dot: true,
      expandDirectories: false,
      followSymbolicLinks: false,
      // List links, FIFOs and folders with a model's name too: they must be refused, not overlooked.
      onlyFiles: false,
      ignore: [WORK, TMP, CACHE, HOME].map(name => `${name}/**`),
      fs: { readdir: readReachable },
    })
    return names.filter(isPublishable).sort()
  } catch (cause) {
    if (cause instanceof TrainerError) throw cause
    throw new TrainerError('storage', `Cannot look for models in ${folder}: ${messageOf(cause)}`, { cause })
  }
}

/** Skip folders beyond PATH_MAX: nobody could open a model there, and the error would hide the other models. */
const readReachable = ((
  path: string,
  options: { withFileTypes: true },
  done: (...result: unknown[]) => void,
) =>
  readdir(path, options, (error, entries) =>
    isErrno(error, 'ENAMETOOLONG') ? done(null, []) : done(error, entries),
  )) as typeof readdir

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
