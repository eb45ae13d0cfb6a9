import { basename } from 'node:path'
import { compare, type PrunableSet } from './entry.ts'
import { isBestName, isStagingName } from './naming.ts'
import { RANK } from './rank.ts'

/**
 * A file that nobody has written to for so long is not being written, however it looks, nor about to be renamed: a training has
 * the lowest priority, and may have to wait for a processor.
 */
const QUIET_NS = 60n * 10n ** 9n
/** A checkpoint is about as large as the one before it; what is smaller than this part of it is half of one. */
const HALF = 0.5
/** Something so much smaller than the largest is no checkpoint, but a file beside one. */
const SMALL = 0.1

export type Situation = {
  /** Does a process of the training have something in it open? */
  isOpen: (set: PrunableSet) => boolean
  /** The bytes of sets, by their paths, when the training last ran. */
  sizes: Map<string, number>
  /** Paths of those of which a part could not be deleted. */
  broken: Set<string>
  /** Are there younger ones, which are not listed? */
  isCut: boolean
}

/**
 * Choose what must stay while a training runs: the newest checkpoint that is complete, because that is what it would
 * resume from, whatever is being written after it, and what is open, because unlinking that frees nothing.
 *
 * @param sets in the order in which they go
 * @returns each with the reason
 */
export function spare(sets: PrunableSet[], situation: Situation): Map<PrunableSet, string> {
  const { isOpen, sizes, broken, isCut } = situation
  const nowNs = BigInt(Date.now()) * 10n ** 6n
  const spared = new Map<PrunableSet, string>()
  const checkpoints = sets.filter(({ rank }) => rank === RANK.checkpoint).sort(byAge)
  const largest = checkpoints.reduce((most, { bytes }) => Math.max(most, bytes), 0)
  const counts = checkpoints.filter(set => set.bytes >= SMALL * largest && !broken.has(set.path))
  let newest: PrunableSet | undefined
  for (let index = counts.length - 1; index >= 0; index--) {
    const set = counts[index]!
    if (isOpen(set)) spared.set(set, 'in use')
    else if (newest) continue
    else if (
      nowNs - set.timeNs <= QUIET_NS &&
      (isHalfOf(set, findBefore(counts, index)) || stillGrows(set, checkpoints, sizes))
    )
      spared.set(set, 'being written')
    // A training goes on from its last one. The best may be as young, but a copy of an older one.
    else if (!isBestName(basename(set.path)) && !isHalf(set)) newest = set
  }
  newest ??= counts.findLast(set => !spared.has(set))
  // The only one there is, or the last of those that are listed.
  if (isCut) newest = counts.at(-1)
  newest ??= checkpoints.findLast(set => !spared.has(set))
  if (newest && !spared.has(newest)) spared.set(newest, 'the newest complete checkpoint')
  // Each of several models that are trained together has checkpoints of its own.
  for (const set of newest?.place ? counts : [])
    if (!spared.has(set) && set.place?.place === newest!.place!.place)
      spared.set(set, 'of the same number as the newest complete checkpoint')
  for (const set of sets) if (!spared.has(set) && isOpen(set)) spared.set(set, 'in use')
  return spared
}

/** Several processes that save at once are not done at once. */
const BESIDE_NS = 10n ** 8n

/** So many processes may save at once; who writes more such files than that does not rename them. */
const MOST_FRESH = 16

/**
 * Find the temporary files that a training may be about to rename, since it has just closed them: the newest that it has
 * touched lately, and not before its newest checkpoint.
 *
 * @param sinceNs when the training began
 */
export function findFresh(sets: PrunableSet[], sinceNs: bigint): Set<PrunableSet> {
  const newestNs = sets.reduce(
    (most, it) => (it.rank === RANK.checkpoint && it.timeNs > most ? it.timeNs : most),
    0n,
  )
  const latelyNs = BigInt(Date.now()) * 10n ** 6n - QUIET_NS
  const isFresh = ({ rank, timeNs }: PrunableSet) =>
    rank === RANK.temporary && timeNs >= sinceNs && timeNs >= newestNs - BESIDE_NS && timeNs >= latelyNs
  const newestFirst = sets.filter(isFresh).sort((a, b) => (a.timeNs > b.timeNs ? -1 : 1))
  return new Set(newestFirst.slice(0, MOST_FRESH))
}

/** An entry that is pointed to is listed last, but is no younger for it. */
function byAge(a: PrunableSet, b: PrunableSet): number {
  return a.orderNs < b.orderNs ? -1 : a.orderNs > b.orderNs ? 1 : 0
}

/** The one before that it can be compared with: of the same pattern, or else of any. */
function findBefore(sets: PrunableSet[], index: number): PrunableSet | undefined {
  return sets.slice(0, index).findLast(it => isOfSeries(it, sets[index]!)) ?? sets[index - 1]
}

function isOfSeries({ place }: PrunableSet, other: PrunableSet): boolean {
  return place !== undefined && place.pattern === other.place?.pattern
}

/** Is it half-written by a name in it? */
function isHalf({ path, entries }: PrunableSet): boolean {
  return isStagingName(basename(path)) || entries.some(({ name }) => isStagingName(name))
}

/** Is it half-written by a name in it, or beside the one before? */
function isHalfOf(set: PrunableSet, before: PrunableSet | undefined): boolean {
  const { bytes, inodes } = set
  return isHalf(set) || (before !== undefined && (inodes < before.inodes || bytes < HALF * before.bytes))
}

/**
 * Has it grown since the last look, and does nothing tell that it is finished? That look may be long ago: the training may have
 * begun a later one of the series since then.
 */
function stillGrows(set: PrunableSet, checkpoints: PrunableSet[], sizes: Map<string, number>): boolean {
  const { path, timeNs, bytes } = set
  const isLater = (it: PrunableSet) =>
    it.timeNs > timeNs && isOfSeries(it, set) && compare(it.place!.place, set.place!.place) > 0
  return bytes > (sizes.get(path) ?? bytes) && !checkpoints.some(isLater)
}
