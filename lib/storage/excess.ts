import { type BigIntStats, lstatSync, type Stats } from 'node:fs'
import { WORK } from '../settings/layout.ts'
import { type Bytes, type Folder, native } from '../system/bytes.ts'
import { MIB } from '../text.ts'
import { overheadOn } from './capacity.ts'
import { Entry, PrunableSet } from './entry.ts'
import { Keeper } from './keeper.ts'
import { chargeOf, findRoot, type MeasureOptions, UNNAMED } from './measure.ts'
import { RANK } from './rank.ts'
import { compileRules, isTooDeep } from './rules.ts'
import { walk } from './walk.ts'

/** Smaller files take long for what they free, so there may be few of them. */
const LARGE_BYTES = MIB
const MOST_SMALL = 1024

/** Outside `work/` or kept; a checkpoint, or in one; undefined if no rule names it. */
type Place = 'stays' | 'named' | undefined

/** Files that were found, and how many of them are small; of those there may be more. */
type Excess = { found: Entry[]; smallCount: number; isCut: boolean }

/**
 * Find files in a folder's `work/` that no rule names, all that are large and a few others, until they have `enoughBytes` or all
 * has been looked at. That is long before everything is counted, and in any order.
 *
 * @param sinceNs files of checkpoints that were written to since then are found too
 */
export async function findExcess(
  dir: string,
  { keep = [], signal, ...globs }: MeasureOptions,
  enoughBytes: number,
  sinceNs?: bigint,
): Promise<Excess> {
  const root = findRoot(dir)
  const overhead = overheadOn(dir)
  const ruleOf = await compileRules(root, globs)
  const keeper = await Keeper.of(keep, signal)
  const enough = new AbortController()
  const found: Entry[] = []
  let foundBytes = 0
  let smallCount = 0
  // Everything outside `work/` stays, and so is not gone into.
  const placeOf = ({ path, data }: Folder<Place>, name: Bytes, kind: 'file' | 'folder'): Place => {
    if (path === root) return name === WORK ? undefined : 'stays'
    if (isTooDeep(path)) return 'stays'
    const rule = ruleOf(path, name, kind)
    if (rule === 'kept') return 'stays'
    const isNamed = data === 'named' || (rule !== undefined && rule.rank !== RANK.temporary)
    if (isNamed) return sinceNs === undefined ? 'stays' : 'named'
    return undefined
  }
  const take = (folder: Folder<Place>, name: Bytes, place: Place) => {
    const stats = lstatSync(native(`${folder.reach}/${name}`), { bigint: true, throwIfNoEntry: false })
    if (!stats?.isFile() || stats.nlink > 1n) return
    if (place === 'named' && stats.mtimeNs < sinceNs!) return
    const entry = new Entry(folder, name, stats, stats.mtimeNs, UNNAMED, undefined)
    entry.add(chargeOf(stats, overhead))
    entry.bytes = entry.ownBytes
    if (keeper.keeps(entry)) return
    entry.set = new PrunableSet(`${folder.label}/${name}`, entry)
    if (stats.size < LARGE_BYTES) smallCount++
    found.push(entry)
    foundBytes += entry.bytes
    if (foundBytes >= enoughBytes) enough.abort()
  }
  const visitor = {
    isExact: () => false,
    visit(folder: Folder<Place>, name: Bytes, stats: Stats | BigIntStats): Place {
      const isFolder = stats.isDirectory()
      const isSmall = !isFolder && stats.size < LARGE_BYTES
      const isPassed = isSmall && (!stats.size || smallCount >= MOST_SMALL)
      if (folder.data === 'stays' || isPassed || enough.signal.aborted) return folder.data
      const place = placeOf(folder, name, isFolder ? 'folder' : 'file')
      if (place !== 'stays' && !isFolder) take(folder, name, place)
      return place
    },
  }
  const over = AbortSignal.any([enough.signal, ...(signal ? [signal] : [])])
  await walk<Place>(root, undefined, visitor, over).catch(error => {
    if (error !== enough.signal.reason) throw error
  })
  return { found, smallCount, isCut: smallCount >= MOST_SMALL }
}
