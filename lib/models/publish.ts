import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { JobName } from '../quotas.ts'
import { CURRENT, foldersIn } from '../settings/layout.ts'
import { storageError } from '../system/durable.ts'
import { count } from '../text.ts'
import { makeCurrent } from './commit.ts'
import { flatNamesOf } from './flat-names.ts'
import { currentGeneration, type Generation, isSameFile, publishedDirOf } from './generations.ts'
import { type Model, withoutData } from './judge.ts'
import { contentOf, type Manifest, readManifest } from './manifest.ts'
import type { MoveOptions } from './move-in.ts'
import { discard, nextNumber } from './next-generation.ts'
import { hasLinks, publishFlat, removeFormer } from './publish-flat.ts'
import { retire } from './retire.ts'
import { type Staged, stageModels, type TrainingFacts } from './stage.ts'
import { metricsOf } from './trainer-metadata.ts'
import { verifyGeneration } from './verify.ts'

/** A published model. */
export type Published = {
  path: string
  bytes: number
  sha256: string
  /** Its external data, by the names that it has now. */
  data: { name: string; bytes: number; sha256: string }[]
  /** Undefined on a filesystem without links. */
  generation: number | undefined
  metrics: Record<string, number>
}

export type PublishOptions = Pick<MoveOptions, 'makeRoom'> & {
  /** How many generations are kept beside the current one. */
  keepGenerations?: number
  /** Looks at what would be published, in a folder of its own, beside the current one; throws unless it is accepted. */
  accept?: (candidate: Staged, current: Generation | undefined) => Promise<void>
  /** The names of files of the last training that this one found, though it was to begin anew. */
  stayed?: string[]
  /** Ends a publication until its generation becomes current; one that has become current is finished. */
  signal?: AbortSignal | undefined
  /** Told what an operator should know. */
  warn?: (message: string) => void
}

/**
 * Publish valid models of `work/` with their external data, as a generation: everything that this training made, and
 * nothing of the last one but an operator's own models. At every moment, and after a power cut, `current` is the old
 * generation or the new one, whole:
 *
 * 1. The generation is made beside the current one, its manifest last, and everything in it is made durable.
 * 2. `accept` has agreed; a model that it refuses is set aside as the candidate.
 * 3. One rename makes the generation current. Flat names follow.
 *
 * A crash before the third step has changed nothing that is published; after it `recover()` puts the flat names. Until that
 * step `signal` ends it, between files, and what was made of the generation goes.
 *
 * @throws {TrainerError} `training-failed` if a model has changed or a name is taken; `storage` if the system refuses a
 * step; what `accept` and `makeRoom` throw; the reason of `signal`. What is published is unchanged then, or it is the new
 * generation, of which some flat names are missing until the next start
 */
export async function publish(
  jobDir: string,
  job: JobName,
  found: Model[],
  facts: TrainingFacts,
  { keepGenerations = 1, accept, stayed = [], signal, makeRoom, warn = () => {} }: PublishOptions = {},
): Promise<Published[]> {
  const models = withoutData(found)
  const names = models.map(({ name }) => name)
  try {
    const current = currentGeneration(jobDir)
    const former = readManifest(publishedDirOf(jobDir))
    const staged = await stageModels(jobDir, job, models, facts, { signal, makeRoom })
    await accept?.(staged, current)
    // The same bytes repair a damaged file.
    const still =
      staged.isAgain && current ? await stillPublished(current, staged.manifest, signal) : undefined
    const isAgain = staged.isAgain && (!current || still !== undefined)
    if (isAgain) {
      warn(
        `the training made the same bytes as are published already (${names.join(', ')}), so their age stays: it may have ` +
          `resumed where it had ended, or its data have not changed${describeStayed(stayed)}`,
      )
    }
    const { metadata, files } = still ?? staged.manifest
    let dir = jobDir
    let generation: Generation | undefined
    const isLinking = await hasLinks(jobDir)
    signal?.throwIfAborted()
    if (isLinking) {
      tellOfHidden(jobDir, current, staged.manifest, warn)
      if (current && still) {
        // Another generation of the same would take the place of one that there is to go back to.
        await rm(staged.dir, { recursive: true })
        generation = current
      } else generation = await makeCurrent(jobDir, nextNumber(jobDir), staged.manifest)
      dir = generation.dir
      if (!current && former) await removeFormer(jobDir, former, staged.manifest)
      await retire(jobDir, keepGenerations, current)
    } else {
      warn(
        `the filesystem of ${jobDir} has no links, so models are published file by file: a reader of several files may ` +
          'get some of the old model and some of the new, and there is no rollback',
      )
      await publishFlat(jobDir, staged, former, signal)
    }
    await rm(foldersIn(jobDir).candidateDir, { recursive: true, force: true })
    const metrics = metricsOf(metadata)
    const newNames = new Map(Object.entries(metadata.renamed ?? {}).map(([name, it]) => [it, name]))
    const told = (name: string) => ({ bytes: metadata.sizes[name]!, sha256: files[name]! })
    return models.map(({ name, references }) => {
      const flat = join(jobDir, name)
      const path = isSameFile(flat, join(dir, name)) ? flat : join(dir, name)
      const data = references
        .map(it => relative(foldersIn(jobDir).workDir, it))
        .map(original => newNames.get(original) ?? original)
        .map(it => ({ name: it, ...told(it) }))
      return { path, ...told(name), data, generation: generation?.number, metrics }
    })
  } catch (cause) {
    await discard(jobDir, cause)
    throw storageError(`Cannot publish ${names.join(', ')} in ${jobDir}`, cause)
  }
}

/** Name the first of what a training may have gone on from. */
function describeStayed([first, ...others]: string[]): string {
  if (first === undefined) return ''
  const [more, them] = others.length ? [` and ${count(others.length, 'more file')}`, 'them'] : ['', 'that']
  return `; it found ${first}${more} of the last training, as prune does not name ${them}`
}

/**
 * Return the manifest of a generation that is, as it is on disk, what another manifest describes, but for how long the training
 * took and the names that its external data got. Reads every file.
 */
async function stillPublished(
  generation: Generation,
  manifest: Manifest,
  signal?: AbortSignal,
): Promise<Manifest | undefined> {
  const own = readManifest(generation.dir)
  if (!own || !isDeepStrictEqual(tellingOf(own), tellingOf(manifest))) return undefined
  return (await verifyGeneration(generation, signal)).differences.length === 0 ? own : undefined
}

/** Pick what a manifest tells of its training. */
function tellingOf(manifest: Manifest): unknown {
  const { training_seconds: _seconds, replaces: _replaces, ...metadata } = manifest.metadata
  const { renamed: _renamed, relocated: _relocated, sizes: _sizes, mtimes_ns: _times, ...rest } = metadata
  const files = contentOf(manifest).map(({ original, sha256 }) => `${sha256} ${original}`)
  return JSON.parse(JSON.stringify({ files: files.sort(), rest }))
}

/** Tell that flat names go, the first time that they do. */
function tellOfHidden(
  jobDir: string,
  current: Generation | undefined,
  manifest: Manifest,
  warn: (message: string) => void,
): void {
  if (!current) return
  const gone = flatNamesOf(manifest).hidden.filter(name => existsSync(join(jobDir, name)))
  if (!gone.length) return
  const [first, ...others] = gone
  warn(
    `${first}${others.length ? ` and ${others.length} more` : ''} no longer stand in ${jobDir} itself, so that no reader mixes ` +
      `two trainings; read them in ${join(jobDir, CURRENT)}`,
  )
}
