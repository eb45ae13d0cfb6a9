import { readSync } from 'node:fs'
import { UnusableFile } from '../system/plain-file.ts'

const WINDOW_BYTES = 4096

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
  #position = 0
  #stop = 0
  readonly #fd: number
  readonly #window = Buffer.allocUnsafe(WINDOW_BYTES)
  #windowStart = 0
  #windowStop = 0

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
    this.field = Math.floor(tag / 8)
    this.wireType = tag % 8
    if (this.field < 1 || this.field >= 2 ** 29) throw damaged(this.#stop)
    this.#stop = this.#payloadStop(end)
    if (this.#stop > end) throw damaged(this.#position)
    return true
  }

  /** Length of the field's payload in bytes. */
  get length(): number {
    return this.#stop - this.#position
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
   * @throws {UnusableFile} if it is longer than a path can be
   */
  text(): string {
    const bytes = this.length
    if (bytes > WINDOW_BYTES) throw damaged(this.#position)
    const text = Buffer.alloc(bytes)
    if (readSync(this.#fd, text, 0, bytes, this.#position) < bytes) throw damaged(this.#position)
    return text.toString('utf8')
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
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.#position >= end) break
      const byte = this.#byte()
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    throw damaged(this.#position)
  }

  #byte(): number {
    const position = this.#position++
    if (position < this.#windowStart || position >= this.#windowStop) {
      this.#windowStart = position
      this.#windowStop = position + readSync(this.#fd, this.#window, 0, WINDOW_BYTES, position)
      if (this.#windowStop === position) throw damaged(position)
    }
    return this.#window[position - this.#windowStart]!
  }
}

function damaged(position: number): UnusableFile {
  return new UnusableFile(`is cut off or damaged at byte ${position}`)
}
