import { type BigIntStats, lstatSync, type Stats } from 'node:fs'
import { WORK } from '../settings/layout.ts'
import { type Bytes, type Folder, native } from '../system/bytes.ts'
import { MIB } from '../text.ts'
import { overheadOn } from './capacity.ts'
import { Entry, PrunableSet } from './entry.ts'
import { Keeper } from './keeper.ts'
import { allocatedOf, chargeOf, findRoot, type MeasureOptions, UNNAMED } from './measure.ts'
import { RANK } from './rank.ts'
import { compileRules, type Globs, isTooDeep } from './rules.ts'
import { walk } from './walk.ts'

/** Smaller files take long for what they free, so there may be few of them. */
const LARGE_BYTES = MIB
const MOST_SMALL = 1024

/** Outside `work/` or kept; a checkpoint or in one; undefined if no rule names it, but perhaps as a temporary file. */
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
  const placeOf = await placeRule(root, globs)
  const keeper = await Keeper.of(keep, signal)
  const enough = new AbortController()
  const found: Entry[] = []
  let foundBytes = 0
  let smallCount = 0
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
    foundBytes += allocatedOf(stats, overhead) // holes free nothing
    if (foundBytes >= enoughBytes) enough.abort()
  }
  const stays = (place: Place) => place === 'stays' || (place === 'named' && sinceNs === undefined)
  const visitor = {
    isExact: () => false,
    visit(folder: Folder<Place>, name: Bytes, stats: Stats | BigIntStats): Place {
      const isFolder = stats.isDirectory()
      const isSmall = !isFolder && stats.size < LARGE_BYTES
      const isPassed = isSmall && (!stats.size || smallCount >= MOST_SMALL)
      if (stays(folder.data) || isPassed || enough.signal.aborted) return folder.data
      const place = placeOf(folder.path, name, isFolder ? 'folder' : 'file', folder.data)
      if (!stays(place) && !isFolder) take(folder, name, place)
      return place
    },
  }
  const over = AbortSignal.any([enough.signal, ...(signal ? [signal] : [])])
  await walk<Place>(root, undefined, visitor, over).catch(error => {
    if (error !== enough.signal.reason) throw error
  })
  return { found, smallCount, isCut: smallCount >= MOST_SMALL }
}

/** Tells the place of what is in a folder that has one itself. */
type PlaceOf = (folder: Bytes, name: Bytes, kind: 'file' | 'folder', above: Place) => Place

async function placeRule(root: Bytes, globs: Globs): Promise<PlaceOf> {
  const ruleOf = await compileRules(root, globs)
  return (folder, name, kind, above) => {
    // Everything outside `work/` stays, and so is not gone into.
    if (folder === root) return name === WORK ? undefined : 'stays'
    if (above === 'stays' || isTooDeep(folder)) return 'stays'
    const rule = ruleOf(folder, name, kind)
    if (rule === 'kept') return 'stays'
    const isNamed = rule !== undefined && rule.rank !== RANK.temporary
    return above === 'named' || isNamed ? 'named' : undefined
  }
}

/**
 * Make the test for a file in a folder, by its path: would {@link findExcess} find it, if it is one that grows also where it is a
 * checkpoint or a part of one?
 */
export async function excessTest(
  dir: string,
  { keep = [], signal, ...globs }: MeasureOptions,
): Promise<(path: Bytes, file: Record<'dev' | 'ino', bigint> & { isGrowing: boolean }) => boolean> {
  const root = findRoot(dir)
  const placeOf = await placeRule(root, globs)
  const keeper = await Keeper.of(keep, signal)
  return (path, file) => {
    let folder = root
    let place: Place
    const names = path.slice(root.length + 1).split('/')
    for (const [index, name] of names.entries()) {
      place = placeOf(folder, name, index < names.length - 1 ? 'folder' : 'file', place)
      folder = `${folder}/${name}`
    }
    const isKept = keeper.keepsInode(file) || keeper.keepsPath(path)
    return !isKept && (place === undefined || (place === 'named' && file.isGrowing))
  }
}
