import type { PrunableSet } from './entry.ts'
import { RANK } from './rank.ts'

/**
 * Find the newest complete checkpoint of each family: those whose names have one pattern. One without a number in its name
 * is a family of its own.
 *
 * @param spared those that stay, with the reason; of a family whose newest stays complete there is no other
 * @param broken paths of those of which a part could not be deleted
 */
export function newestOfFamilies(
  sets: PrunableSet[],
  spared: Map<PrunableSet, string>,
  broken: Set<string>,
): Set<PrunableSet> {
  const newest = new Map<string, PrunableSet>()
  for (const set of sets) {
    if (set.rank !== RANK.checkpoint || broken.has(set.path) || isUnfinished(spared.get(set))) continue
    const family = set.place?.pattern ?? set.path
    const other = newest.get(family)
    if (!other || other.orderNs <= set.orderNs) newest.set(family, set)
  }
  return new Set(newest.values())
}

function isUnfinished(reason: string | undefined): boolean {
  return reason === 'being written' || reason === 'in use'
}
