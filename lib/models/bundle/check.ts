import { createHash, type KeyObject } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { isErrno, TrainerError } from '../../errors.ts'
import { openNamed, reasonOf, UnusableFile } from '../../system/plain-file.ts'
import { escapeText as shown } from '../../text.ts'
import {
  adoptionIn,
  contradictionsIn,
  MANIFEST,
  MANIFEST_MAX_BYTES,
  type Manifest,
  parseManifest,
} from '../manifest.ts'
import type { Verification } from '../verify.ts'
import { isSigned } from './signature.ts'
import { collect, readTar, type TarEntry } from './tarball.ts'
import { SIGNATURE } from './write.ts'

type VerifiedFile = Verification['verified'][number]

/** A signature by a key of 16,384 bits is shorter in base64. */
const SIGNATURE_MAX_BYTES = 4096
const PIECE_BYTES = 64 * 1024
const BYTES_AFTER_END = 'has bytes after its end'

/**
 * Check a bundle that may come from anybody: its manifest is signed, and it holds exactly the files that the manifest
 * lists, each with the size and SHA-256 stated there, none of them adopted. The bundle is read once, from front to
 * back, in bounded memory, and nothing is extracted. The manifest and the signature must come first; nothing else is
 * read until the signature has been checked.
 *
 * @returns the files of a good bundle; for a bad bundle no files, and its first fault
 * @throws {TrainerError} `storage` if it cannot be read
 */
export async function checkBundle(file: string, key: KeyObject): Promise<Verification> {
  const { fd, stats } = openBundle(file)
  const gunzip = createGunzip({ chunkSize: PIECE_BYTES })
  try {
    const verified = await pipeline(
      createReadStream('', { fd, start: 0 }),
      gunzip,
      (chunks: AsyncIterable<Buffer>) => checkEntries(readTar(chunks), key),
    )
    // gunzip passes over what follows a zero byte after its end or, if it is much, ends the pipeline early.
    if (gunzip.bytesWritten !== Number(stats.size)) throw new UnusableFile(BYTES_AFTER_END)
    return { verified, adopted: [], differences: [] }
  } catch (error) {
    const reason = faultOf(error)
    if (reason === undefined) throw unreadableBundle(file, error)
    return { verified: [], adopted: [], differences: [{ path: file, reason }] }
  }
}

/** Name the bundle's fault; undefined if reading it failed instead. */
function faultOf(error: unknown): string | undefined {
  if (error instanceof UnusableFile) return error.message
  if (isErrno(error, 'Z_DATA_ERROR', 'Z_BUF_ERROR', 'Z_NEED_DICT')) return 'is not a gzip file, or damaged'
  return isErrno(error, 'ABORT_ERR', 'ERR_STREAM_PREMATURE_CLOSE') ? BYTES_AFTER_END : undefined
}

function openBundle(file: string): ReturnType<typeof openNamed> {
  try {
    return openNamed(file)
  } catch (cause) {
    throw unreadableBundle(file, cause)
  }
}

function unreadableBundle(file: string, cause: unknown): TrainerError {
  const isForbidden = isErrno(cause, 'EACCES', 'EPERM')
  const remedy = isForbidden ? 'this user must be able to read it' : 'name a bundle by --bundle'
  return new TrainerError('storage', `Cannot check ${file}: it ${reasonOf(cause)}; ${remedy}`, { cause })
}

async function checkEntries(
  entries: AsyncGenerator<TarEntry, void>,
  key: KeyObject,
): Promise<VerifiedFile[]> {
  const text = await readNext(entries, MANIFEST, MANIFEST_MAX_BYTES)
  const signature = await readNext(entries, SIGNATURE, SIGNATURE_MAX_BYTES)
  if (!isSigned(text, signature.toString('latin1'), key)) {
    throw new UnusableFile(`has a ${MANIFEST} that was not signed with the private half of this key`)
  }
  const manifest = parseManifest(text.toString())
  if (!manifest || !Object.keys(manifest.files).length)
    throw new UnusableFile(`has a ${MANIFEST} that describes no model`)
  const [contradiction = adoptionIn(manifest)] = contradictionsIn(manifest)
  if (contradiction) throw new UnusableFile(`has a ${MANIFEST} that ${contradiction}`)
  return checkFiles(entries, manifest)
}

async function readNext(
  entries: AsyncGenerator<TarEntry, void>,
  name: string,
  maxBytes: number,
): Promise<Buffer> {
  const { value: entry } = await entries.next()
  if (entry?.name !== name)
    throw new UnusableFile(`holds ${shown(entry?.name ?? 'nothing')} where ${name} must come`)
  if (entry.bytes > maxBytes)
    throw new UnusableFile(`has a ${name} of ${entry.bytes} bytes, at most ${maxBytes} are read`)
  return collect(entry.content)
}

async function checkFiles(
  entries: AsyncIterable<TarEntry>,
  { files, metadata }: Manifest,
): Promise<VerifiedFile[]> {
  const verified: VerifiedFile[] = []
  const awaited = new Map(Object.entries(files))
  const sizes = new Map(Object.entries(metadata.sizes))
  for await (const { name: path, bytes, content } of entries) {
    const sha256 = awaited.get(path)
    if (sha256 === undefined) {
      const reason = Object.hasOwn(files, path) ? 'twice' : `that its ${MANIFEST} does not list`
      throw new UnusableFile(`holds ${shown(path)} ${reason}`)
    }
    const listedBytes = sizes.get(path)
    if (listedBytes !== undefined && bytes !== listedBytes) {
      throw new UnusableFile(`holds ${shown(path)} with ${bytes} bytes, but ${listedBytes} were published`)
    }
    if ((await sha256Of(content)) !== sha256) {
      throw new UnusableFile(`holds ${shown(path)} with content that was not published`)
    }
    awaited.delete(path)
    verified.push({ path, bytes, sha256 })
  }
  if (awaited.size) throw new UnusableFile(`lacks ${[...awaited.keys()].map(shown).join(', ')}`)
  return verified
}

async function sha256Of(content: TarEntry['content']): Promise<string> {
  const hash = createHash('sha256')
  for await (const piece of content) hash.update(piece)
  return hash.digest('hex')
}
