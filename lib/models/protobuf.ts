import { readSync } from 'node:fs'
import type { Bytes } from '../system/bytes.ts'
import { UnusableFile } from '../system/plain-file.ts'

/** The least that is read at a time: a walk that passes over tensors wants no more between them. */
const LEAST_WINDOW_BYTES = 4096
/** The most, in a file that is read without a gap; also the longest text. */
const MOST_WINDOW_BYTES = 64 * 1024

/** So many bytes of packed numbers are read of one file, to count them; then they are passed over as tensors are. */
const MOST_COUNTED_BYTES = 16 * 2 ** 20

/** Protobuf's wire types; the two of groups (3, 4) were obsolete before ONNX began. */
export const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const

/**
 * A cursor over the fields of a protobuf file. It reads only what it is asked for: passing over a tensor of gigabytes
 * is one addition. (Protobuf libraries read from memory, so they would need the whole file.)
 *
 * @example while (reader.next(end)) if (reader.field === 7 && reader.wireType === WIRE.bytes) walk(reader,
 * reader.enter())
 */
export class WireReader {
  field = 0
  wireType = 0
  /** A varint's value; exact up to 2^53. */
  value = 0
  /** Where what follows the field's tag begins: of text or a message its length. */
  lengthStart = 0
  #position = 0
  #stop = 0
  readonly #fd: number
  readonly #window = Buffer.allocUnsafe(MOST_WINDOW_BYTES)
  #windowStart = 0
  #windowStop = 0
  #windowBytes = LEAST_WINDOW_BYTES
  #countedBytes = 0

  constructor(fd: number) {
    this.#fd = fd
  }

  /**
   * Step to the next field of the message that ends at `end`; false when there is none.
   *
   * @throws {UnusableFile} if the bytes there are not protobuf, or the field reaches beyond `end`
   */
  next(end: number): boolean {
    this.#position = this.#stop
    if (this.#position === end) return false
    const tag = this.#varint(end)
    this.lengthStart = this.#position
    this.field = Math.floor(tag / 8)
    this.wireType = tag % 8
    if (this.field < 1 || this.field >= 2 ** 29) throw damaged(this.#stop)
    this.#stop = this.#payloadStop(end)
    if (this.#stop > end) throw damaged(this.#position)
    return true
  }

  /**
   * Step over fields of the same number and type that follow at once, at most `most` of them.
   *
   * @returns how many there were
   */
  skipRun(end: number, most: number): number {
    const tag = this.field * 8 + this.wireType
    let count = 0
    while (count < most && this.#stop < end && this.#byteAt(this.#stop) === tag) {
      this.next(end)
      count++
    }
    return count
  }

  /** Length of the field's payload in bytes. */
  get length(): number {
    return this.#stop - this.#position
  }

  /** Where the field's payload begins. */
  get payloadStart(): number {
    return this.#position
  }

  /** Enter the field's payload as a message, whose first field is then the next. Returns its end, for `next`. */
  enter(): number {
    const end = this.#stop
    this.#stop = this.#position
    return end
  }

  /**
   * Read the field's payload as text.
   *
   * @throws {UnusableFile} if it is longer than any name
   */
  text(): string {
    const at = this.#load()
    return this.#window.toString('utf8', at, at + this.length)
  }

  /** Read the field's payload as a name, a character for each byte: that is enough, and faster, to compare names. */
  bytes(): Bytes {
    const at = this.#load()
    return this.#window.toString('latin1', at, at + this.length)
  }

  /** Read the field's payload as varints, one after another, as packed fields have them. */
  *varints(): Generator<number, void> {
    const end = this.#stop
    while (this.#position < end) yield this.#varint(end)
  }

  /**
   * Count the field's payload as varints, one after another. Reads it.
   *
   * @returns undefined if it is longer than a text, or so much has been read for this
   * @throws {UnusableFile} if they are no varints
   */
  countVarints(): number | undefined {
    const { length } = this
    if (length > MOST_WINDOW_BYTES || this.#countedBytes + length > MOST_COUNTED_BYTES) return undefined
    this.#countedBytes += length
    const at = this.#load()
    let count = 0
    let last = at - 1
    for (let index = at; index < at + length; index++) {
      if (this.#window[index]! >= 0x80) continue
      if (index - last > 10) throw damaged(this.#position)
      last = index
      count++
    }
    if (length && last !== at + length - 1) throw damaged(this.#position)
    return count
  }

  /** @returns where the payload is in the window */
  #load(): number {
    const bytes = this.length
    if (bytes > MOST_WINDOW_BYTES) throw damaged(this.#position)
    if (bytes && (this.#position < this.#windowStart || this.#stop > this.#windowStop)) {
      this.#fill(this.#position, Math.max(bytes, this.#windowBytes))
      if (this.#stop > this.#windowStop) throw damaged(this.#position)
    }
    return this.#position - this.#windowStart
  }

  #payloadStop(end: number): number {
    switch (this.wireType) {
      case WIRE.varint:
        this.value = this.#varint(end)
        return this.#position
      case WIRE.fixed64:
        return this.#position + 8
      case WIRE.fixed32:
        return this.#position + 4
      case WIRE.bytes: {
        const length = this.#varint(end)
        return this.#position + length
      }
      default:
        throw damaged(this.#position)
    }
  }

  #varint(end: number): number {
    let value = 0
    let factor = 1
    for (let bytes = 0; bytes < 10; bytes++) {
      if (this.#position >= end) break
      const byte = this.#byteAt(this.#position++)
      if (byte < 0x80) return value + byte * factor
      value += (byte & 0x7f) * factor
      factor *= 128
    }
    throw damaged(this.#position)
  }

  #byteAt(position: number): number {
    if (position < this.#windowStart || position >= this.#windowStop) this.#fill(position, this.#windowBytes)
    return this.#window[position - this.#windowStart]!
  }

  #fill(position: number, bytes: number): void {
    // Read more at a time while nothing is passed over.
    const isNext = position === this.#windowStop && position > 0
    this.#windowBytes = isNext ? Math.min(2 * this.#windowBytes, MOST_WINDOW_BYTES) : LEAST_WINDOW_BYTES
    this.#windowStart = position
    this.#windowStop = position + readSync(this.#fd, this.#window, 0, bytes, position)
    if (this.#windowStop === position) throw damaged(position)
  }
}

function damaged(position: number): UnusableFile {
  return new UnusableFile(`is cut off or damaged at byte ${position}`)
}
