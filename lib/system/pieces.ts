import type { Readable } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'

/** To read what a program says takes about a millisecond for so much. */
const PIECE_BYTES = 16 * 1024

/**
 * Cut what a stream brings into small pieces. After each everything else has its turn, however much is there to be read: the
 * rest waits in the stream, and whoever writes it waits too. Ends with the stream, and also once that is destroyed.
 */
export async function* piecesOf(stream: Readable): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        yield chunk.subarray(at, at + PIECE_BYTES)
        await nextTurn()
        if (stream.readableAborted) return
      }
    }
  } catch {
    // Destroyed, or broken: nothing more comes.
  }
}
