import { UnusableFile } from '../../system/plain-file.ts'
import { BLOCK_BYTES, formatHeader, parseHeader } from './tar-header.ts'

/** A plain file in an archive. Its content has exactly `bytes` bytes and can be read once. */
export type TarEntry = { name: string; bytes: number; content: Iterable<Buffer> | AsyncIterable<Buffer> }

/** Other programs pad an archive to a record of 10 KiB; far more than that is something else. */
const MAX_FILLING_BYTES = 1024 * 1024

/**
 * Write an archive in POSIX's oldest form (ustar), which every program reads. It holds nothing of the machine or the
 * moment: the same entries always give the same bytes.
 *
 * @throws {TrainerError} `training-failed` if an entry's name or size is too long for this form
 */
export async function* writeTar(
  entries: Iterable<TarEntry> | AsyncIterable<TarEntry>,
): AsyncGenerator<Buffer, void> {
  for await (const { name, bytes, content } of entries) {
    yield formatHeader(name, bytes)
    yield* content
    yield Buffer.alloc(paddingOf(bytes))
  }
  yield Buffer.alloc(2 * BLOCK_BYTES)
}

/**
 * Read an archive that may come from anybody, piece by piece and in bounded memory. Only plain files are accepted: no
 * links, devices or folders, and no extended headers, which can contradict a file's name and size.
 *
 * The caller must read each entry's content before it asks for the next entry.
 *
 * @throws {UnusableFile} if the archive holds anything else, is damaged or ends early
 */
export async function* readTar(chunks: AsyncIterable<Buffer>): AsyncGenerator<TarEntry, void> {
  const reader = new ByteReader(chunks)
  for (;;) {
    const header = await reader.take(BLOCK_BYTES)
    if (isZero(header)) break
    const { name, bytes } = parseHeader(header)
    yield { name, bytes, content: reader.pieces(bytes) }
    if (!isZero(await reader.take(paddingOf(bytes)))) throw new UnusableFile('has bytes between its files')
  }
  let fillingBytes = 0
  for await (const piece of reader.rest()) {
    fillingBytes += piece.length
    if (!isZero(piece) || fillingBytes > MAX_FILLING_BYTES) throw new UnusableFile('has bytes after its end')
  }
}

/** Takes bytes from a stream. */
class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>
  #pending: Buffer = Buffer.alloc(0)

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]()
  }

  /** Yield exactly so many bytes, as they come. */
  async *pieces(bytes: number): AsyncGenerator<Buffer, void> {
    for (let left = bytes; left > 0; ) {
      if (!this.#pending.length && !(await this.#fill())) throw new UnusableFile('ends too early')
      const piece = this.#pending.subarray(0, left)
      this.#pending = this.#pending.subarray(piece.length)
      left -= piece.length
      yield piece
    }
  }

  /** Read exactly so many bytes at once. */
  async take(bytes: number): Promise<Buffer> {
    return collect(this.pieces(bytes))
  }

  async *rest(): AsyncGenerator<Buffer, void> {
    do yield this.#pending
    while (await this.#fill())
  }

  async #fill(): Promise<boolean> {
    const { value, done } = await this.#chunks.next()
    if (!done) this.#pending = value
    return !done
  }
}

/** Read a whole content that is known to be small. */
export async function collect(content: TarEntry['content']): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of content) pieces.push(piece)
  return Buffer.concat(pieces)
}

function paddingOf(bytes: number): number {
  return -bytes & (BLOCK_BYTES - 1)
}

function isZero(bytes: Buffer): boolean {
  return bytes.every(byte => byte === 0)
}
