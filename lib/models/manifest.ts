import { lstatSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import * as v from 'valibot'
import { TrainerError } from '../errors.ts'
import type { JobName } from '../quotas.ts'
import { writeDurably } from '../system/durable.ts'
import { readPlain, reasonOf } from '../system/plain-file.ts'
import { formatBytes } from '../text.ts'
import { type Generation, recogniserFor } from './generations.ts'
import { isOnnx, isPublishable } from './judge.ts'

export const MANIFEST = 'manifest.json'

/** The manifest of a publication in progress. Its files are whole and durable, in place or still in `work/`. */
export const NEXT_MANIFEST = 'manifest.json.next'

/** The most that is written, and read into memory: enough for 10,000 files. */
export const MANIFEST_MAX_BYTES = 4 * 2 ** 20

/** Every file takes more of a manifest: its name stands there three times, with its SHA-256, its size and its time. */
const LEAST_FILE_BYTES = 100

const name = v.pipe(v.string(), v.check(isPublishable))
const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))

const manifestSchema = v.object({
  metadata: v.looseObject({
    /** The models among the listed files; the others are their external data. */
    models: v.optional(v.array(name), []),
    /** The job's `models` globs at the time of publication. */
    model_globs: v.optional(v.array(v.string()), []),
    sizes: v.optional(v.record(v.string(), v.number()), {}),
    /** Modification times in nanoseconds, as decimal strings: more digits than a JSON number keeps. */
    mtimes_ns: v.optional(v.record(v.string(), v.string()), {}),
    /** External data of replaced models, kept for readers until the next run begins; only where there are no generations. */
    superseded: v.optional(v.array(name), []),
    /** Published on a filesystem without links, as files beside each other. */
    flat: v.optional(v.boolean()),
    /** The training's own name for external data that was published under another name, by that name. */
    renamed: v.optional(v.record(name, name)),
    /** The SHA-256 that the training gave a model, by its name, where the model has been written anew to name its data so. */
    relocated: v.optional(v.record(name, sha256)),
    /** The number of the generation that was current before this one was published. */
    replaces: v.optional(v.pipe(v.number(), v.safeInteger())),
    /** The listed files that no training here made; they were found in place and kept. */
    adopted: v.optional(v.array(name), []),
  }),
  files: v.record(name, sha256),
})

/**
 * Describes what a job has published: SHA-256 in hex by path, external data before models, and metadata. RansomEye's
 * model bundles use the same form. Unknown keys of `metadata` are kept.
 */
export type Manifest = v.InferOutput<typeof manifestSchema>

/** A manifest's description of one file. */
export type ManifestEntry = { sha256: string; bytes: number; mtimeNs: string }

/**
 * Read the manifest in a folder: a job's or that of a generation. Returns undefined without a readable one; published
 * models are then judged by themselves.
 */
export function readManifest(folder: string, file = MANIFEST): Manifest | undefined {
  try {
    return parseManifest(readPlain(folder, file, MANIFEST_MAX_BYTES, recogniserFor(folder)))
  } catch (error) {
    reasonOf(error) // throws again what is a defect of ours
    return undefined
  }
}

/** Has a generation all files of its manifest, in their sizes? One that made room, or whose removal was cut off, has not. */
export function isWhole({ dir }: Generation): boolean {
  const manifest = readManifest(dir)
  if (!manifest) return false
  return Object.keys(manifest.files).every(name => {
    const bytes = lstatSync(join(dir, name), { throwIfNoEntry: false })?.size
    return bytes !== undefined && bytes === manifest.metadata.sizes[name]
  })
}

/** Parse a manifest; undefined if the text is none. */
export function parseManifest(text: string): Manifest | undefined {
  try {
    const parsed = JSON.parse(text)
    const { success, output } = v.safeParse(manifestSchema, parsed)
    // Valibot drops keys like __proto__, but no listed file may go unseen.
    return success && isDeepStrictEqual(Object.keys(output.files), Object.keys(parsed.files))
      ? output
      : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

/** A published file, and what the training called it and had in it. */
export type Content = { name: string; original: string; sha256: string }

/** List the files as the training made them: by this the same is known again, whatever names its external data got. */
export function contentOf({ files, metadata }: Manifest): Content[] {
  const originals = new Map(Object.entries(metadata.renamed ?? {}))
  const relocated = new Map(Object.entries(metadata.relocated ?? {}))
  return Object.entries(files).map(([name, hash]) => ({
    name,
    original: originals.get(name) ?? name,
    sha256: relocated.get(name) ?? hash,
  }))
}

/**
 * Find metadata that contradicts the files. No SHA-256 vouches for metadata, yet readers rely on it.
 *
 * @param bytesByName sizes of the files whose content is as published
 * @returns each contradiction as the end of a sentence that begins with the manifest's name
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
  // Superseded files are going to be removed.
  for (const name of superseded) if (listed.has(name)) refuse('superseded', name, 'which is among its files')
  for (const [name, bytes] of bytesByName) {
    if (!Object.hasOwn(sizes, name) || sizes[name] === bytes) continue
    refuse('sizes', name, `with ${sizes[name]} bytes, which has ${bytes}`)
  }
  return found
}

/**
 * Find what bars a manifest's files from a bundle: an adopted file, which no training made.
 *
 * @returns the end of a sentence that begins with the manifest's name; undefined if no file is adopted
 */
export function adoptionIn({ metadata }: Manifest): string | undefined {
  const [name] = metadata.adopted
  return name === undefined
    ? undefined
    : `names ${JSON.stringify(name)} in metadata.adopted: it was not trained`
}

/** The parts that a manifest is composed of. */
export type Contents = {
  job: JobName
  globs: string[]
  /** Names of the models; the first is the one that consumers load. */
  models: string[]
  /** Every file by name, external data before models. */
  entries: Map<string, ManifestEntry>
  /** Other metadata of the models, such as what the trainer reported. The manifest's own keys win over it. */
  metadata: Record<string, unknown>
  superseded?: string[]
  renamed?: Record<string, string>
  relocated?: Record<string, string>
  replaces: number | undefined
  adopted: string[]
}

/** Compose a manifest with every key that RansomEye's consumers expect. */
export function composeManifest(contents: Contents): Manifest {
  const { job, globs, models, entries, metadata, superseded = [], replaces, adopted } = contents
  const { renamed, relocated } = contents
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
      renamed: renamed && Object.keys(renamed).length ? renamed : undefined,
      relocated: relocated && Object.keys(relocated).length ? relocated : undefined,
      flat: undefined,
      replaces,
      adopted,
    },
    files: byName(entry => entry.sha256),
  }
}

/**
 * Write a manifest durably.
 *
 * @throws {TrainerError} `training-failed` if it describes more files than could be read back
 */
export async function writeManifest(path: string, manifest: Manifest): Promise<void> {
  const text = `${JSON.stringify(manifest, null, 2)}\n`
  assertReadable(Object.keys(manifest.files).length, Buffer.byteLength(text))
  await writeDurably(path, text)
}

/**
 * Assert that a manifest has room for so many files, before anything of them is made durable.
 *
 * @param draft their manifest, but for their hashes; called only if it is not too large for their number alone
 * @throws {TrainerError} `training-failed` if it would have more bytes than could be read back
 */
export async function assertRoomFor(files: number, draft: () => Promise<Manifest>): Promise<void> {
  assertReadable(files, files * LEAST_FILE_BYTES, 'more than ')
  assertReadable(files, Buffer.byteLength(JSON.stringify(await draft(), null, 2)))
}

function assertReadable(files: number, bytes: number, more = ''): void {
  if (bytes <= MANIFEST_MAX_BYTES) return
  throw new TrainerError(
    'training-failed',
    `Cannot publish ${files} files: their manifest would have ${more}${formatBytes(bytes)}, at most ` +
      `${formatBytes(MANIFEST_MAX_BYTES)} are read; publish fewer files, or one archive of them`,
  )
}
