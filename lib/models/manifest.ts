import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import * as v from 'valibot'
import type { JobName } from '../quotas.ts'
import { renameDurably, writeDurably } from '../system/durable.ts'
import { readPlain, reasonOf } from '../system/plain-file.ts'
import { isOnnx, isPublishable } from './judge.ts'

export const MANIFEST = 'manifest.json'

/** The manifest of a publication in progress: its files are whole and durable, in place or still in `work/`. */
export const NEXT_MANIFEST = 'manifest.json.next'

/** A manifest is small; more than this is not read into memory. */
export const MANIFEST_MAX_BYTES = 4 * 2 ** 20

const name = v.pipe(v.string(), v.check(isPublishable))

const manifestSchema = v.object({
  metadata: v.looseObject({
    /** The listed files that are models; the others are their external data. */
    models: v.optional(v.array(name), []),
    /** What the job called a model when it was published. */
    model_globs: v.optional(v.array(v.string()), []),
    sizes: v.optional(v.record(v.string(), v.number()), {}),
    /** Modification times in nanoseconds, as decimal strings: more digits than a JSON number keeps. */
    mtimes_ns: v.optional(v.record(v.string(), v.string()), {}),
    /** External data of models that have been replaced: kept for readers until the next run begins. */
    superseded: v.optional(v.array(name), []),
    /** The listed files that no training here has made: found in place, and kept. */
    adopted: v.optional(v.array(name), []),
  }),
  files: v.record(name, v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
})

/**
 * What is published in a job's folder: SHA-256 in hex by path, external data before models, and everything known
 * about it as metadata. The form is that of RansomEye's model bundles; any other key in `metadata` is kept.
 */
export type Manifest = v.InferOutput<typeof manifestSchema>

/** One file as a manifest describes it. */
export type ManifestEntry = { sha256: string; bytes: number; mtimeNs: string }

/** Read a manifest; none where there is no readable one: published models are then judged by themselves. */
export function readManifest(jobDir: string, file = MANIFEST): Manifest | undefined {
  try {
    return parseManifest(readPlain(jobDir, file, MANIFEST_MAX_BYTES))
  } catch (error) {
    reasonOf(error) // throws on what is a defect of ours
    return undefined
  }
}

/** The manifest that a text is, if it is one. */
export function parseManifest(text: string): Manifest | undefined {
  try {
    const parsed = JSON.parse(text)
    const { success, output } = v.safeParse(manifestSchema, parsed)
    // Valibot leaves out keys like __proto__; nothing that is listed may go unseen.
    return success && isDeepStrictEqual(Object.keys(output.files), Object.keys(parsed.files))
      ? output
      : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

/**
 * Metadata that the files do not bear out: no SHA-256 vouches for it, and it is relied on.
 *
 * @param bytesByName the files that are what was published
 * @returns each as the end of a sentence that begins with the manifest's name
 */
export function contradictionsIn(
  { files, metadata }: Manifest,
  bytesByName: ReadonlyMap<string, number> = new Map(),
): string[] {
  const { model_file, models, sizes, superseded } = metadata
  const listed = new Set<unknown>(Object.keys(files))
  const loadable = models.length ? new Set<unknown>(models) : listed
  const found: string[] = []
  const refuse = (key: string, name: unknown, fault: string) =>
    found.push(`names ${JSON.stringify(name)} in metadata.${key}, ${fault}`)

  for (const name of models) if (!listed.has(name)) refuse('models', name, 'which is not among its files')
  if (model_file !== undefined && !loadable.has(model_file)) {
    refuse('model_file', model_file, 'which is none of its models')
  }
  // What is superseded is going to be removed.
  for (const name of superseded) if (listed.has(name)) refuse('superseded', name, 'which is among its files')
  for (const [name, bytes] of bytesByName) {
    if (!Object.hasOwn(sizes, name) || sizes[name] === bytes) continue
    refuse('sizes', name, `with ${sizes[name]} bytes, which has ${bytes}`)
  }
  return found
}

/**
 * What bars a manifest's files from a bundle: one that no training has made.
 *
 * @returns the end of a sentence that begins with the manifest's name
 */
export function adoptionIn({ metadata }: Manifest): string | undefined {
  const [name] = metadata.adopted
  return name === undefined
    ? undefined
    : `names ${JSON.stringify(name)} in metadata.adopted: it was not trained`
}

/** What goes into a manifest. */
export type Contents = {
  job: JobName
  globs: string[]
  /** Names of the models; the first is the one that consumers load. */
  models: string[]
  /** All files by name, external data before models. */
  entries: Map<string, ManifestEntry>
  /** What is known of the models besides, such as what the trainer reported; the manifest's own keys win. */
  metadata: Record<string, unknown>
  superseded: string[]
  adopted: string[]
}

/** Put a manifest together, with every key that RansomEye's consumers expect. */
export function composeManifest(contents: Contents): Manifest {
  const { job, globs, models, entries, metadata, superseded, adopted } = contents
  const byName = <T>(pick: (entry: ManifestEntry) => T) =>
    Object.fromEntries(Array.from(entries, ([name, entry]) => [name, pick(entry)]))
  return {
    metadata: {
      version: 'unknown',
      features: [],
      trained_on: 'unknown',
      performance_metrics: {},
      ...metadata,
      name: job,
      model_type: models.every(isOnnx) ? 'onnx' : 'other',
      model_file: models[0],
      models,
      model_globs: globs,
      sizes: byName(({ bytes }) => bytes),
      mtimes_ns: byName(({ mtimeNs }) => mtimeNs),
      superseded,
      adopted,
    },
    files: byName(entry => entry.sha256),
  }
}

/** Write the next manifest, durably; until it is committed the current one stands. */
export async function planManifest(jobDir: string, manifest: Manifest): Promise<void> {
  await writeDurably(join(jobDir, NEXT_MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`)
}

/** Make the next manifest the current one, durably. */
export async function commitManifest(jobDir: string): Promise<void> {
  await renameDurably(join(jobDir, NEXT_MANIFEST), join(jobDir, MANIFEST))
}
