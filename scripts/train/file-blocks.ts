import { createCipheriv } from 'node:crypto'
import { promisify } from 'node:util'
import { brotliCompress, gzip, constants as zlib } from 'node:zlib'
import { blockBytes } from './block-features.ts'
import type { FileSection } from './file-sections.ts'
import type { Random } from './random.ts'

/**
 * The kind of a block: part of a file as it is, of a file that was found compressed (images, archives, packages), of a
 * stream compressed here, or encrypted.
 */
export type BlockKind = 'plain' | 'packed' | 'gzip' | 'brotli' | 'aes-ctr' | 'chacha20'

export type Block = { kind: BlockKind; bytes: Buffer }

/** Bytes of headers and first codes to skip at the start of a compressed stream. */
const streamHeadBytes = 512
/** A file that gzip cannot shrink below this share was compressed, or random, before. */
const packedShare = 0.95

/** Make blocks of a section in every form it can take, two of each where it has as many. */
export async function blocksOf({ bytes }: FileSection, random: Random): Promise<Block[]> {
  const level = random.pick([1, 6, 9])
  const quality = random.pick([4, 5])
  const key = random.bytes(32)
  const nonce = random.bytes(16)
  const [gzipped, brotlied] = await Promise.all([
    promisify(gzip)(bytes, { level }),
    promisify(brotliCompress)(bytes, { params: { [zlib.BROTLI_PARAM_QUALITY]: quality } }),
  ])
  const isPacked = gzipped.length > packedShare * bytes.length
  const cut = (kind: BlockKind, stream: Buffer, head = 0) =>
    cutBlocks(stream.subarray(head), 2, random).map(bytes => ({ kind, bytes }))
  return [
    ...cut(isPacked ? 'packed' : 'plain', bytes),
    ...(isPacked ? [] : cut('gzip', gzipped, streamHeadBytes)),
    ...(isPacked ? [] : cut('brotli', brotlied, streamHeadBytes)),
    ...cut('aes-ctr', createCipheriv('aes-256-ctr', key, nonce).update(bytes)),
    ...cut('chacha20', createCipheriv('chacha20', key, nonce).update(bytes)),
  ]
}

/** Cut up to `count` blocks that do not overlap, at random places. */
function cutBlocks(stream: Buffer, count: number, random: Random): Buffer[] {
  const slots = Math.floor(stream.length / blockBytes)
  const start = random.below(stream.length - slots * blockBytes + 1)
  const chosen = random.shuffle([...Array(slots).keys()]).slice(0, count)
  return chosen.map(slot => stream.subarray(start + slot * blockBytes, start + (slot + 1) * blockBytes))
}
