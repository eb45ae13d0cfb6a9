import type { Bytes } from '../system/bytes.ts'
import { Slice } from '../system/slice.ts'
import type { Aged } from './entries-by-age.ts'
import { compare, compareAge, type Entry, type Inode, PrunableSet } from './entry.ts'

/**
 * Put entries into sets, in the order in which they go: by rank, and by time; but those of one pattern by their numbers,
 * whatever their times. Everything else has its turn meanwhile.
 */
export async function arrange(entries: Aged[]): Promise<PrunableSet[]> {
  const sets = new Map<Bytes, PrunableSet>()
  const slice = new Slice()
  for (const { entry, checkpoint, place } of entries) {
    const set = sets.get(checkpoint)
    if (set) set.add(entry)
    else sets.set(checkpoint, new PrunableSet(checkpoint, entry, place))
    if (slice.isOver()) await slice.next()
  }
  const all = [...sets.values()]
  const series = new Map<Bytes, PrunableSet[]>()
  for (const set of all) {
    set.orderNs = set.timeNs
    if (set.entries.length > 1) set.entries.sort(compareAge)
    if (!set.place) continue
    const others = series.get(set.place.pattern)
    if (others) others.push(set)
    else series.set(set.place.pattern, [set])
  }
  await slice.next()
  for (const numbered of series.values()) {
    numbered.sort((a, b) => compare(a.place!.place, b.place!.place) || compare(a.timeNs, b.timeNs))
    let beforeNs = -1n
    for (const set of numbered) {
      if (set.orderNs <= beforeNs) set.orderNs = beforeNs + 1n
      beforeNs = set.orderNs
    }
  }
  await slice.next()
  return all.sort(compareSets)
}

/** A checkpoint that is pointed to goes last of all, and an empty cache after those. */
export function compareSets(a: PrunableSet, b: PrunableSet): number {
  return (
    Number(a.isEmptyCache) - Number(b.isEmptyCache) ||
    a.rank - b.rank ||
    Number(a.pointer !== undefined) - Number(b.pointer !== undefined) ||
    compare(a.orderNs, b.orderNs) ||
    compareAge(a.entries[0]!, b.entries[0]!)
  )
}

/**
 * Keep those sets whose removal frees anything, if they go in this order: a hard link frees nothing while another of its
 * names remains.
 */
export function worthPruning(sets: PrunableSet[]): PrunableSet[] {
  const names = new Map<Inode, number>()
  const each = (visit: (entry: Entry) => void) => {
    for (const { entries } of sets) entries.forEach(visit)
  }
  each(entry => {
    entry.bytes = entry.ownBytes
    for (const inode of entry.inodes) {
      const count = (names.get(inode) ?? 0) + 1
      names.set(inode, count)
      if (count === inode.names) entry.bytes += inode.bytes
    }
  })
  const isWhole = (inode: Inode) => names.get(inode) === inode.names
  return sets.filter(({ entries }) =>
    entries.some(({ ownInodes, inodes }) => ownInodes > 0 || inodes.some(isWhole)),
  )
}
