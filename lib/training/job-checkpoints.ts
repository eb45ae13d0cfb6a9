import { basename } from 'node:path'
import { bestCheckpoints, usualCheckpoints } from '../quotas.ts'
import type { Job } from '../run.ts'
import type { PrunableSet } from '../storage/entry.ts'
import { findWork, type Measurement, type MeasureOptions, measure } from '../storage/measure.ts'
import { isBestName } from '../storage/naming.ts'
import { RANK } from '../storage/rank.ts'
import { escapeBytes, isWithin } from '../system/bytes.ts'

/**
 * Measure a job's checkpoints alone, those that `keep` names too, what is called the best, and those of usual names where it
 * names no framework.
 */
export function measureCheckpoints({ jobDir, quota }: Job, options: MeasureOptions): Promise<Measurement> {
  const prune = [...quota.globs.prune, ...bestCheckpoints, ...(quota.framework ? [] : usualCheckpoints)]
  return measureNamed(jobDir, { ...options, prune })
}

/** Measure what globs name in a job's output folder, but for caches and the like. */
export async function measureNamed(jobDir: string, options: MeasureOptions): Promise<Measurement> {
  const found = await measure(jobDir, options)
  const work = findWork(jobDir)
  const prunable = found.prunable.filter(
    ({ rank, folder }) => rank === RANK.checkpoint && isWithin(folder, work),
  )
  return { ...found, prunable }
}

/** The newest checkpoint, the best only if there is no other, and the one before it that has the same pattern of a name. */
export async function newestOf(job: Job): Promise<PrunableSet[]> {
  const { prunable } = await measureCheckpoints(job, { which: 'newest' })
  const sets = [...new Set(prunable.map(({ set }) => set))].sort((a, b) => (a.orderNs < b.orderNs ? 1 : -1))
  const isBest = ({ path }: PrunableSet) => isBestName(basename(path))
  const [newest, ...others] = [...sets.filter(it => !isBest(it)), ...sets.filter(isBest)]
  if (!newest) return []
  const before = others.find(({ place }) => place && place.pattern === newest.place?.pattern)
  return before ? [newest, before] : [newest]
}

/** One with a number is the same until there is another, whatever a start that fails writes into it. */
export function identityOf({ path, bytes, timeNs, place }: PrunableSet): string {
  const name = basename(escapeBytes(path))
  return place ? name : `${name} ${bytes} ${timeNs}`
}
