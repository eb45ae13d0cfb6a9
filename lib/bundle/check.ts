import { createHash, type KeyObject } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { SIGNATURE } from '../bundle.ts'
import { isErrno } from '../errors.ts'
import { MANIFEST, MANIFEST_MAX_BYTES, type Manifest, parseManifest } from '../models/manifest.ts'
import { reasonOf, UnusableFile } from '../plain-file.ts'
import { escapeText as shown } from '../text.ts'
import type { Verification } from '../verify.ts'
import { isSigned } from './signature.ts'
import { collect, readTar, type TarEntry } from './tarball.ts'

type VerifiedFile = Verification['verified'][number]

/** Base64 of a signature by a key of 16,384 bits is shorter. */
const SIGNATURE_MAX_BYTES = 4096
const PIECE_BYTES = 64 * 1024

/**
 * Check a bundle that may come from anybody: its manifest is signed, and it holds exactly the files that the manifest
 * lists, each as long and with the SHA-256 that stands there. It is read once, from front to back, in bounded memory,
 * and nothing is extracted; until the signature has been checked nothing is read but the manifest and the signature,
 * which have to come first.
 *
 * @returns the files of a bundle that is good; of any other none, and the first thing that is wrong with it
 */
export async function checkBundle(file: string, key: KeyObject): Promise<Verification> {
  try {
    const verified = await pipeline(
      createReadStream(file),
      createGunzip({ chunkSize: PIECE_BYTES }),
      (chunks: AsyncIterable<Buffer>) => checkEntries(readTar(chunks), key),
    )
    return { verified, differences: [] }
  } catch (error) {
    const reason = isErrno(error, ...gzipFaults) ? 'is not a gzip file, or damaged' : reasonOf(error)
    return { verified: [], differences: [{ path: file, reason }] }
  }
}

const gzipFaults = ['Z_DATA_ERROR', 'Z_BUF_ERROR', 'Z_NEED_DICT']

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
  return checkFiles(entries, manifest)
}

async function readNext(
  entries: AsyncGenerator<TarEntry, void>,
  name: string,
  maxBytes: number,
): Promise<Buffer> {
  const { value: entry } = await entries.next()
  if (entry?.name !== name)
    throw new UnusableFile(`holds ${shown(entry?.name ?? 'nothing')} where ${name} has to come`)
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
  for await (const { name: path, bytes, content } of entries) {
    const sha256 = awaited.get(path)
    if (sha256 === undefined) {
      const reason = Object.hasOwn(files, path) ? 'twice' : `that its ${MANIFEST} does not list`
      throw new UnusableFile(`holds ${shown(path)} ${reason}`)
    }
    const listedBytes = metadata.sizes[path]
    if (listedBytes !== undefined && bytes !== listedBytes) {
      throw new UnusableFile(`holds ${shown(path)} with ${bytes} bytes, published were ${listedBytes}`)
    }
    if ((await sha256Of(content)) !== sha256) {
      throw new UnusableFile(`holds ${shown(path)} with other content than was published`)
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
