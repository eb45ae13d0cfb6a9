import { readSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { UnusableFile } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import type { Message } from './onnx/schema.ts'
import { schema } from './onnx/schema.ts'
import { WIRE, WireReader } from './protobuf.ts'

/** A message that contains a change: where its length stands, its content, and what that has then. */
type Changed = {
  lengthStart: number
  start: number
  stop: number
  bytes: number
  changes: (Changed | Replacement)[]
}
/** A text, with its length, that another takes the place of. */
type Replacement = { lengthStart: number; stop: number; bytes: number; text: Buffer }

/** Bytes of the old file, or new ones. */
type Piece = { from: number; to: number } | Buffer

/** So much is read and written at a time: the pieces of a model that names its data at each tensor are many and small. */
const BUFFER_BYTES = 2 ** 18

/** Fields between two looks at the clock, which takes longer than one. */
const STEPS_A_LOOK = 256

/**
 * Write an ONNX model anew, durably, with other locations of external data; everything else stays as it is, byte by byte,
 * but for the lengths of the messages around. The tensors in the model are copied, never read into memory as a whole.
 *
 * @param locations the new ones by the old, each as a path without `.` and `..`
 * @throws {UnusableFile} if it is no ONNX model, or becomes shorter meanwhile; the system's error, or the reason of `signal`
 */
export async function relocate(
  from: string,
  to: string,
  locations: Map<string, string>,
  signal?: AbortSignal,
): Promise<void> {
  await using source = await open(from)
  const { size } = await source.stat()
  const model = await findLocations(new WireReader(source.fd), size, locations, signal)
  await using target = await open(to, 'wx')
  const slice = new Slice()
  const [window, buffer] = [Buffer.allocUnsafe(BUFFER_BYTES), Buffer.allocUnsafe(BUFFER_BYTES)]
  let [windowStart, windowStop, filled] = [0, 0, 0]
  for (const piece of piecesOf(model)) {
    const [start, stop] = Buffer.isBuffer(piece) ? [0, piece.length] : [piece.from, piece.to]
    for (let at = start; at < stop; ) {
      const most = Math.min(BUFFER_BYTES - filled, stop - at)
      if (!Buffer.isBuffer(piece) && at >= windowStop) {
        windowStart = at
        windowStop = at + readSync(source.fd, window, 0, BUFFER_BYTES, at)
        if (windowStop === at) throw new UnusableFile(`has become shorter than ${size} bytes meanwhile`)
      }
      const [old, offset] = Buffer.isBuffer(piece)
        ? [piece, 0]
        : [window.subarray(0, windowStop - windowStart), windowStart]
      const bytes = old.copy(buffer, filled, at - offset, at - offset + most)
      at += bytes
      filled += bytes
      if (filled === BUFFER_BYTES) {
        await target.writeFile(buffer)
        filled = 0
      }
      await slice.giveWay(signal)
    }
  }
  await target.writeFile(buffer.subarray(0, filled))
  await target.sync()
}

/** Find the places to change, each in the messages that it is in. */
async function findLocations(
  reader: WireReader,
  bytes: number,
  locations: Map<string, string>,
  signal?: AbortSignal,
): Promise<Changed> {
  type Open = Changed & { message: Message; key: string; value: Replacement | undefined }
  const opened = (message: Message, lengthStart: number, start: number, stop: number): Open => {
    return { message, lengthStart, start, stop, bytes: stop - start, changes: [], key: '', value: undefined }
  }
  const note = (outer: Open, change: Changed | Replacement) => {
    outer.changes.push(change)
    outer.bytes += varint(change.bytes).length + change.bytes - (change.stop - change.lengthStart)
  }
  const slice = new Slice()
  let level = opened('model', 0, 0, bytes)
  const above: Open[] = []
  for (let steps = 1; ; steps++) {
    if (steps % STEPS_A_LOOK === 0) await slice.giveWay(signal)
    if (!reader.next(level.stop)) {
      const outer = above.pop()
      if (!outer) return level
      if (level.message === 'place' && level.key === 'location' && level.value) note(level, level.value)
      if (level.changes.length) note(outer, level)
      level = outer
      continue
    }
    const { field, wireType, lengthStart } = reader
    if (wireType !== WIRE.bytes) continue
    if (level.message === 'place') {
      if (field === 1) level.key = reader.text()
      const location = field === 2 ? locations.get(plain(reader.text())) : undefined
      if (location === undefined) continue
      const text = Buffer.from(location)
      level.value = { lengthStart, stop: reader.payloadStart + reader.length, bytes: text.length, text }
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

/** Lay out a message with its changes. */
function* piecesOf({ start, stop, changes }: Changed): Generator<Piece, void> {
  let at = start
  for (const change of changes) {
    yield { from: at, to: change.lengthStart }
    yield varint(change.bytes)
    if ('text' in change) yield change.text
    else yield* piecesOf(change)
    at = change.stop
  }
  yield { from: at, to: stop }
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128)
  return Buffer.from([...bytes, value])
}
