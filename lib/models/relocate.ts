import { open } from 'node:fs/promises'
import type { Message } from './onnx/schema.ts'
import { schema } from './onnx/schema.ts'
import { WIRE, WireReader } from './protobuf.ts'

/** A message that contains a change: where its length stands, and its content. */
type Changed = { lengthStart: number; start: number; stop: number; changes: (Changed | Replacement)[] }
/** A text, with its length, that another takes the place of. */
type Replacement = { lengthStart: number; stop: number; text: string }

/** Bytes of the old file, or new ones. */
type Piece = { from: number; to: number } | Buffer

const PIECE_BYTES = 2 ** 20

/**
 * Write an ONNX model anew, durably, with other locations of external data; everything else stays as it is, byte by byte,
 * but for the lengths of the messages around. The tensors in the model are copied, never read into memory as a whole.
 *
 * @param locations the new ones by the old, each as a path without `.` and `..`
 * @throws {UnusableFile} if it is no ONNX model, or the system's error
 */
export async function relocate(from: string, to: string, locations: Map<string, string>): Promise<void> {
  await using source = await open(from)
  const { size } = await source.stat()
  const changes = findLocations(new WireReader(source.fd), size, locations)
  await using target = await open(to, 'wx')
  const buffer = Buffer.allocUnsafe(PIECE_BYTES)
  for (const piece of piecesOf({ lengthStart: 0, start: 0, stop: size, changes }).content) {
    if (Buffer.isBuffer(piece)) await target.writeFile(piece)
    else {
      for (let at = piece.from; at < piece.to; ) {
        const { bytesRead } = await source.read(buffer, 0, Math.min(PIECE_BYTES, piece.to - at), at)
        await target.writeFile(buffer.subarray(0, bytesRead))
        at += bytesRead
      }
    }
  }
  await target.sync()
}

/** Find the places to change, each in the messages that it is in. */
function findLocations(
  reader: WireReader,
  bytes: number,
  locations: Map<string, string>,
): Changed['changes'] {
  type Open = Changed & { message: Message; key: string; value: Replacement | undefined }
  const opened = (message: Message, lengthStart: number, start: number, stop: number): Open => {
    return { message, lengthStart, start, stop, changes: [], key: '', value: undefined }
  }
  let level = opened('model', 0, 0, bytes)
  const above: Open[] = []
  for (;;) {
    if (!reader.next(level.stop)) {
      const outer = above.pop()
      if (!outer) return level.changes
      if (level.message === 'place' && level.key === 'location' && level.value)
        level.changes.push(level.value)
      if (level.changes.length) outer.changes.push(level)
      level = outer
      continue
    }
    const { field, wireType, lengthStart } = reader
    if (wireType !== WIRE.bytes) continue
    if (level.message === 'place') {
      if (field === 1) level.key = reader.text()
      const text = field === 2 ? locations.get(plain(reader.text())) : undefined
      if (text !== undefined) level.value = { lengthStart, stop: reader.payloadStart + reader.length, text }
      continue
    }
    const inner = schema[level.message][field]?.inner
    if (!inner) continue
    above.push(level)
    const start = reader.payloadStart
    level = opened(inner, lengthStart, start, reader.enter())
  }
}

function plain(location: string): string {
  return location
    .split('/')
    .filter(part => part !== '' && part !== '.')
    .join('/')
}

/** Lay out a message with its changes; `bytes` is what its content has then. */
function piecesOf({ start, stop, changes }: Changed): { content: Piece[]; bytes: number } {
  const content: Piece[] = []
  let bytes = 0
  let at = start
  const add = (piece: Piece) => {
    content.push(piece)
    bytes += Buffer.isBuffer(piece) ? piece.length : piece.to - piece.from
  }
  for (const change of changes) {
    add({ from: at, to: change.lengthStart })
    if ('text' in change) {
      const text = Buffer.from(change.text)
      add(Buffer.concat([varint(text.length), text]))
    } else {
      const inner = piecesOf(change)
      add(varint(inner.bytes))
      for (const piece of inner.content) add(piece)
    }
    at = change.stop
  }
  add({ from: at, to: stop })
  return { content, bytes }
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128)
  return Buffer.from([...bytes, value])
}
