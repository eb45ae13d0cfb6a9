import type { Bytes } from '../system/bytes.ts'
import { compare, compareAge, type Entry } from './entry.ts'
import { Belonging, type Place, placeOf } from './naming.ts'
import { RANK } from './rank.ts'

/** So many entries are listed of a folder that has more: enough to free what is needed, and small in memory. */
export const MOST_ENTRIES = 12_288

/**
 * Collects what may be pruned, and keeps the oldest of it, or the newest: at most twice `most`, however much there is. Left
 * out are entries that must stay, those that go with a folder, and those of which something that belongs to them is left out.
 */
export class EntriesByAge {
  /** Has any been left out for its age? */
  isCut = false
  readonly #belonging: Belonging
  readonly #most: number
  /** 1 if the oldest are kept, -1 if the newest are. */
  readonly #direction: 1 | -1
  #entries: Aged[] = []
  /** None of those that were left out comes before this. */
  #last: Aged | undefined
  /** The checkpoints that left-out entries belong to. */
  readonly #staying = new NameMarks()

  /** @param root the measured folder */
  constructor(root: Bytes, most: number, which: 'oldest' | 'newest') {
    this.#belonging = new Belonging(root)
    this.#most = most
    this.#direction = which === 'oldest' ? 1 : -1
  }

  add(entry: Entry): void {
    const aged = this.#age(entry)
    if (this.#isBeyond(aged)) this.#staying.add(aged.checkpoint)
    else this.#entries.push(aged)
    if (this.#entries.length >= 2 * this.#most) this.#cut()
  }

  /** It stays, and so does what belongs to it. */
  keep(label: Bytes, name: Bytes): void {
    this.#staying.add(this.#belonging.checkpointOf(label, name))
  }

  /** The entries that are left. */
  list(): Aged[] {
    // A folder may have become younger since it was found, as new as the newest thing in it.
    this.#leave(aged => !goesAlone(aged.entry) || this.#isBeyond(aged))
    return this.#entries.filter(({ checkpoint }) => !this.#staying.has(checkpoint))
  }

  #age(entry: Entry): Aged {
    const { label, name } = entry
    if (entry.rank !== RANK.checkpoint) return { entry, checkpoint: `${label}/${name}`, place: undefined }
    const checkpoint = this.#belonging.checkpointOf(label, name)
    return { entry, checkpoint, place: placeOf(checkpoint) }
  }

  #isBeyond(aged: Aged): boolean {
    return this.#last !== undefined && this.#direction * compareAged(aged, this.#last) > 0
  }

  #cut(): void {
    this.#leave(({ entry }) => !goesAlone(entry))
    if (this.#entries.length < 2 * this.#most) return
    // Sorting all of them would hold up everything else.
    const step = Math.ceil(this.#entries.length / 512)
    const sample = this.#entries.filter((_, index) => index % step === 0).sort(compareAged)
    this.#last = sample[sample.length >> 1]!
    this.isCut = true
    this.#leave(aged => this.#isBeyond(aged))
  }

  /** Leave entries out, and with them what belongs to those that do not go with a folder. */
  #leave(isLeft: (aged: Aged) => boolean): void {
    this.#entries = this.#entries.filter(aged => {
      if (!isLeft(aged)) return true
      if (aged.entry.isKept || goesAlone(aged.entry)) this.#staying.add(aged.checkpoint)
      return false
    })
  }
}

/** An entry, the path of what it belongs to, and where that stands among those of its pattern. */
export type Aged = { entry: Entry; checkpoint: Bytes; place: Place | undefined }

/** Order by age, and by number what is of one pattern. */
function compareAged(a: Aged, b: Aged): number {
  const isOneSeries = a.place && b.place && a.place.pattern === b.place.pattern
  return (isOneSeries && compare(a.place!.place, b.place!.place)) || compareAge(a.entry, b.entry)
}

function goesAlone({ isKept, owner }: Entry): boolean {
  return !isKept && (!owner || owner.isKept)
}

/** Remembers names in little memory, however many: of a name that was not added it may say so, but rarely. */
class NameMarks {
  #marks: Uint8Array | undefined

  add(name: Bytes): void {
    const mark = hash(name)
    this.#marks ??= new Uint8Array(MARKS / 8)
    this.#marks[mark >> 3]! |= 1 << (mark & 7)
  }

  has(name: Bytes): boolean {
    const mark = hash(name)
    return this.#marks !== undefined && (this.#marks[mark >> 3]! & (1 << (mark & 7))) !== 0
  }
}

const MARKS = 2 ** 23

/** FNV-1a, see http://www.isthe.com/chongo/tech/comp/fnv/ */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let index = 0; index < text.length; index++)
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193)
  return (value ^ (value >>> 15)) & (MARKS - 1)
}
