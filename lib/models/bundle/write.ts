import { createHash, type KeyObject } from 'node:crypto'
import { createReadStream, createWriteStream, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { isErrno, TrainerError } from '../../errors.ts'
import type { JobName } from '../../quotas.ts'
import { outputFile, replaceDurably, storageError } from '../../system/durable.ts'
import {
  assertFolder,
  openPlain,
  readPlain,
  reasonOf,
  statPlain,
  UnusableFile,
} from '../../system/plain-file.ts'
import { commandFor, type Place } from '../../system/start-command.ts'
import { type Generation, publishedDirOf, recogniserFor } from '../generations.ts'
import {
  adoptionIn,
  contradictionsIn,
  MANIFEST,
  MANIFEST_MAX_BYTES,
  type Manifest,
  parseManifest,
} from '../manifest.ts'
import { signText } from './signature.ts'
import { type TarEntry, writeTar } from './tarball.ts'

/** The signature over the exact bytes of a bundle's manifest, as base64. */
export const SIGNATURE = 'manifest.sig'

const PIECE_BYTES = 64 * 1024

/** A job, and what of it is bundled. */
type PublishedJob = Place & {
  job: JobName
  jobDir: string
  /** By default the current one, or the job's folder itself where there are none. */
  generation?: Generation | undefined
}

/** A job, and the folder of what is bundled. */
type Source = PublishedJob & { dir: string }

/**
 * Bundle a job's published models: a gzip tar with the published manifest, its signature, and the files that it lists,
 * in its order. Only models that were trained and published here are bundled: no file may be adopted, each file is
 * hashed on its way and compared, and the metadata must fit. The same models give the same bytes, except for the
 * signature.
 *
 * The bundle is made beside `out` and takes its place once it is whole and durable. A failure leaves nothing of it.
 *
 * @returns the names of the models and their external data
 * @throws {TrainerError} `training-failed` if nothing is published or a file is not as trained and published;
 * `storage`; `usage` if `out` is in the job's folder; or the reason of `signal`
 */
export async function writeBundle(
  published: PublishedJob,
  key: KeyObject,
  out: string,
  signal: AbortSignal,
): Promise<string[]> {
  const source: Source = { ...published, dir: published.generation?.dir ?? publishedDirOf(published.jobDir) }
  const { text, manifest } = readPublished(source)
  const target = outputFile(out)
  if (target.startsWith(`${realpathSync(published.jobDir)}/`)) {
    throw new TrainerError('usage', `--out is ${out}, expected a place outside ${published.jobDir}`)
  }
  const write = (temporary: string) =>
    pipeline(
      writeTar(entriesOf(source, text, manifest, key)),
      // Stored, not compressed: weights hardly shrink, and compressed bytes depend on zlib's version and on the
      // processor. Pieces of a fixed size keep the framing the same too.
      createGzip({ level: 0, chunkSize: PIECE_BYTES }),
      createWriteStream(temporary, { flags: 'wx' }),
      { signal },
    )
  try {
    await replaceDurably(target, write, `${target}.${process.pid}.tmp`)
  } catch (cause) {
    signal.throwIfAborted()
    throw storageError(`Cannot write ${out}`, cause)
  }
  return Object.keys(manifest.files)
}

/** Read the published manifest, once: the same text is signed and compared with the files. */
function readPublished(published: Source): { text: string; manifest: Manifest } {
  const { jobDir, dir } = published
  try {
    assertFolder(jobDir)
  } catch (cause) {
    throw unbundled(published, jobDir, cause)
  }
  try {
    const text = readPlain(dir, MANIFEST, MANIFEST_MAX_BYTES, recogniserFor(dir))
    const manifest = parseManifest(text)
    if (!manifest || !Object.keys(manifest.files).length) throw new UnusableFile('describes no model')
    const adoption = adoptionIn(manifest)
    if (adoption)
      throw new UnusableFile(`${adoption}, and stays until it is removed or a training replaces it`)
    return { text, manifest }
  } catch (cause) {
    throw unbundled(published, join(dir, MANIFEST), cause)
  }
}

function* entriesOf(
  published: Source,
  text: string,
  manifest: Manifest,
  key: KeyObject,
): Generator<TarEntry, void> {
  yield textEntry(MANIFEST, text)
  yield textEntry(SIGNATURE, signText(text, key))
  const bytesByName = new Map<string, number>()
  for (const [name, sha256] of Object.entries(manifest.files)) {
    const bytes = sizeOf(published, name)
    bytesByName.set(name, bytes)
    yield { name, bytes, content: publishedContent(published, name, sha256) }
  }
  const [contradiction] = contradictionsIn(manifest, bytesByName)
  if (contradiction) {
    throw unbundled(published, join(published.dir, MANIFEST), new UnusableFile(contradiction))
  }
}

function textEntry(name: string, text: string): TarEntry {
  const content = Buffer.from(text)
  return { name, bytes: content.length, content: [content] }
}

function sizeOf(published: Source, name: string): number {
  try {
    return Number(statPlain(published.dir, name, recogniserFor(published.dir)).size)
  } catch (cause) {
    throw unbundled(published, name, cause)
  }
}

/** Read a published file's content into the bundle; throws at its end if it was not the published content. */
async function* publishedContent(
  published: Source,
  name: string,
  sha256: string,
): AsyncGenerator<Buffer, void> {
  try {
    const { fd } = openPlain(published.dir, name, recogniserFor(published.dir))
    const hash = createHash('sha256')
    for await (const piece of createReadStream('', { fd, start: 0, highWaterMark: PIECE_BYTES })) {
      hash.update(piece)
      yield piece
    }
    if (hash.digest('hex') !== sha256) throw new UnusableFile('is not what was published')
  } catch (cause) {
    throw unbundled(published, name, cause)
  }
}

function unbundled({ job, ...place }: Source, what: string, cause: unknown): TrainerError {
  const remedy = isErrno(cause, 'EACCES', 'EPERM')
    ? 'run the same command as root'
    : `train it: ${commandFor(place, 'tasks.ts', job, '--retrain')}`
  const message = `Cannot bundle ${job}: ${what} ${reasonOf(cause)}; ${remedy}`
  return new TrainerError(cause instanceof UnusableFile ? 'training-failed' : 'storage', message, { cause })
}
