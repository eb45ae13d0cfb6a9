import { escapeBytes } from '../../system/bytes.ts'
import { UnusableFile } from '../../system/plain-file.ts'
import { WIRE, type WireReader } from '../protobuf.ts'

/** More than any runtime takes; a file made to be slow has more. */
const MOST_DIMENSIONS = 256

/** The fields of a tensor that hold values one by one, by the number of the field. */
const typedFields = [4, 5, 6, 7, 10, 11]
const RAW = 9

/** How the values of one type are kept: the bits of each in raw bytes, and the field that holds them one by one. */
type ElementType = { bits: number; field: number; parts?: number }

const elementTypes: Record<number, ElementType> = {
  1: { bits: 32, field: 4 }, // float
  2: { bits: 8, field: 5 },
  3: { bits: 8, field: 5 },
  4: { bits: 16, field: 5 },
  5: { bits: 16, field: 5 },
  6: { bits: 32, field: 5 },
  7: { bits: 64, field: 7 },
  8: { bits: 0, field: 6 }, // string
  9: { bits: 8, field: 5 },
  10: { bits: 16, field: 5 },
  11: { bits: 64, field: 10 }, // double
  12: { bits: 32, field: 11 },
  13: { bits: 64, field: 11 },
  14: { bits: 64, field: 4, parts: 2 }, // complex
  15: { bits: 128, field: 10, parts: 2 },
  16: { bits: 16, field: 5 },
  17: { bits: 8, field: 5 },
  18: { bits: 8, field: 5 },
  19: { bits: 8, field: 5 },
  20: { bits: 8, field: 5 },
  21: { bits: 4, field: 5 },
  22: { bits: 4, field: 5 },
  23: { bits: 4, field: 5 },
  24: { bits: 8, field: 5 },
  25: { bits: 2, field: 5 },
  26: { bits: 2, field: 5 },
}

const STRING = 8

/** Is this the number of a type that values can have? */
export function isElementType(type: number): boolean {
  return type in elementTypes
}

/** The facts of a tensor that say how many values it must have, and how many are there. */
export class Tensor {
  name = ''
  type = 0
  isExternal = false
  /** Where its values are, if they are in another file, and how many bytes of it they are. */
  readonly place = new Map<string, string>()
  #count = 1
  #dimensions = 0
  /** Values that came one by one, by field. */
  readonly #typed = new Map<number, { least: number; most: number }>()
  #rawBytes: number | undefined

  /** Take what a field of it says. */
  take(reader: WireReader): void {
    const { field, wireType, length } = reader
    const isPacked = wireType === WIRE.bytes
    switch (field) {
      case 1:
        if (isPacked && length > MOST_DIMENSIONS * 10) throw impossibleSize()
        if (isPacked) for (const size of reader.varints()) this.#addDimension(size)
        else this.#addDimension(reader.value)
        return
      case 2:
        this.type = reader.value
        return
      case 8:
        this.name = reader.bytes()
        return
      case 9:
        this.#rawBytes = length
        return
      case 14:
        this.isExternal = reader.value === 1
        if (reader.value > 1)
          throw new UnusableFile(`has a tensor in a place of kind ${reader.value}, which there is not`)
        return
      case 4:
        this.addValues(field, isPacked ? length / 4 : 1)
        return
      case 10:
        this.addValues(field, isPacked ? length / 8 : 1)
        return
      case 6:
        this.addValues(field, 1)
        return
      case 5:
      case 7:
      case 11:
        if (!isPacked) this.addValues(field, 1)
        else {
          const counted = reader.countVarints()
          // Only the bounds of more are known, for that reads them.
          if (counted === undefined) this.addValues(field, Math.ceil(length / 10), length)
          else this.addValues(field, counted)
        }
    }
  }

  #addDimension(size: number): void {
    this.#count *= size
    this.#dimensions++
    const isPossible = Number.isSafeInteger(size) && this.#count <= Number.MAX_SAFE_INTEGER
    if (!isPossible || this.#dimensions > MOST_DIMENSIONS) throw impossibleSize()
  }

  /** Note values of a field that holds them one by one; packed integers have one to ten bytes each. */
  addValues(field: number, least: number, most = least): void {
    const seen = this.#typed.get(field)
    if (seen) {
      seen.least += least
      seen.most += most
    } else this.#typed.set(field, { least, most })
  }

  /**
   * Check that the values are there, all of them and once.
   *
   * @returns the file that they are in, if it is another, and how many bytes it must at least have
   * @throws {UnusableFile} if the dimensions and the type say otherwise than the values
   */
  close(): { location: string; neededBytes: number } | undefined {
    const elementType = elementTypes[this.type]
    if (!elementType) throw this.#fault(`is of type ${this.type}, which there is not`)
    const neededBytes = Math.ceil((this.#count * elementType.bits) / 8)
    const location = this.place.get('location')
    if (location === undefined && this.isExternal) {
      throw new UnusableFile('has external data without a location')
    }
    if (!this.isExternal) this.#checkInner(elementType, neededBytes)
    else if (this.#sources().length) throw this.#fault('has values of its own and others elsewhere')
    if (location === undefined) return undefined
    if (this.type === STRING) throw this.#fault('keeps strings in another file')
    // A location counts even where the tensor does not say that it is external: readers differ in that.
    const statedBytes = this.#placeNumber('length')
    if (statedBytes && statedBytes !== neededBytes) {
      throw this.#fault(`states ${statedBytes} bytes of external data, its dimensions need ${neededBytes}`)
    }
    return { location, neededBytes: this.#placeNumber('offset') + neededBytes }
  }

  #checkInner({ field, bits, parts = 1 }: ElementType, neededBytes: number): void {
    const [source, ...others] = this.#sources()
    if (others.length) throw this.#fault('has its values twice')
    if (source === undefined) {
      if (this.#count) throw this.#fault('has no values')
      return
    }
    if (source === RAW) {
      if (this.type === STRING) throw this.#fault('keeps strings as raw bytes')
      if (this.#rawBytes === neededBytes) return
      throw this.#fault(`has ${this.#rawBytes} bytes of values, its dimensions need ${neededBytes}`)
    }
    const needed = bits > 0 && bits < 8 ? neededBytes : this.#count * parts
    const { least, most } = this.#typed.get(source)!
    if (source !== field) throw this.#fault('has values of another type')
    if (needed < least || needed > most) {
      throw this.#fault(
        `has ${least === most ? least : `${least} to ${most}`} values, its dimensions need ${needed}`,
      )
    }
  }

  /** The fields that hold values. */
  #sources(): number[] {
    const typed = typedFields.filter(field => this.#typed.get(field)?.most)
    return this.#rawBytes ? [...typed, RAW] : typed
  }

  #placeNumber(key: string): number {
    const stated = this.place.get(key) ?? '0'
    if (!/^\d{1,15}$/.test(stated)) throw new UnusableFile(`has external data with an unusable ${key}`)
    return Number(stated)
  }

  #fault(what: string): UnusableFile {
    return new UnusableFile(`has a tensor ${this.name ? `(${escapeBytes(this.name)}) ` : ''}that ${what}`)
  }
}

function impossibleSize(): UnusableFile {
  return new UnusableFile('has a tensor of a size that cannot be')
}
