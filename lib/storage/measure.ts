import { type BigIntStats, lstatSync, realpathSync, type Stats } from 'node:fs'
import { messageOf, TrainerError } from '../errors.ts'
import { WORK } from '../settings/layout.ts'
import { type Bytes, type Folder, isWithin, PATH_MAX } from '../system/bytes.ts'
import { inodeId } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { arrange, compareSets, worthPruning } from './arrange.ts'
import { accountOf, type Overhead, overheadOn } from './capacity.ts'
import { EntriesByAge, MOST_ENTRIES } from './entries-by-age.ts'
import { Entry, type Inode, type Pointer } from './entry.ts'
import { Keeper } from './keeper.ts'
import { isPointerName, MOST_POINTERS, notePointers } from './pointers.ts'
import { RANK, type Rule } from './rank.ts'
import { compileRules, type Globs, isTooDeep, LEFTOVER, OURS, type RuleOf } from './rules.ts'
import { walk } from './walk.ts'

export type MeasureOptions = Globs & {
  /** Paths that are never prunable, such as published models with their external data and manifest. */
  keep?: Iterable<string | Buffer>
  /** List at least so many of the oldest prunable entries, or of the newest, if there are so many. */
  most?: number
  which?: 'oldest' | 'newest'
  /** After a violation: everything in `work/` may be pruned, except what the rules name other than temporary files. */
  unnamed?: boolean
  /** While a training runs, its beginning: what is half-written and younger is its own, and no leftover. */
  liveSinceNs?: bigint
  /** Ends the walk; its reason is thrown. */
  signal?: AbortSignal
}

/** The content of a folder, counted. */
export type Measurement = {
  /** Charged bytes. */
  usedBytes: number
  /** The same without what is charged of sparse files beyond their blocks. */
  allocatedBytes: number
  usedInodes: number
  /** The part of `usedBytes` that would come free if everything prunable went. */
  prunableBytes: number
  /** The entries that may be pruned, in the order in which they go, those of a set together; `isCut` if those are not all. */
  prunable: Entry[]
  isCut: boolean
  /** The links and files in it that may name a checkpoint to go on with; none in the folders for caches and the like. */
  pointers: Pointer[]
  /** Something in it that has a time in the future, which is not believed. */
  fromFuture: Bytes | undefined
}

/**
 * Measure a folder.
 *
 * Charged are the folder and everything in it, each inode once: of a file its size or its blocks, whichever is more,
 * so that a sparse file counts in full; of all else the blocks; and what the inode itself takes, where that is room for
 * files (XFS, btrfs). Links are not followed. What vanishes meanwhile is not counted; in a folder that is swapped for a
 * link meanwhile, other files may be.
 *
 * @throws {TrainerError} `storage`: the folder or one in it is missing, cannot be read, or has another filesystem
 * mounted on it; it is never taken for empty
 */
export async function measure(dir: string, options: MeasureOptions = {}): Promise<Measurement> {
  const root = findRoot(dir)
  const ruleOf = await compileRules(root, options, options.liveSinceNs !== undefined)
  const keeper = await Keeper.of(options.keep ?? [], options.signal)
  const account = new Account(root, overheadOn(dir), ruleOf, keeper, options)
  const rootStats = await walk<Owner>(root, undefined, account, options.signal)
  return account.close(rootStats)
}

/** The prunable folder that something is in, if it is in one; `kept` in a folder that stays whole. */
type Owner = Entry | 'kept' | undefined

/** Clocks of machines that share a disk may differ by so much. */
const FUTURE_NS = 60n * 10n ** 9n

/** Adds up a walk. */
class Account {
  readonly #root: Bytes
  readonly #work: Bytes
  readonly #overhead: Overhead
  readonly #ruleOf: RuleOf
  readonly #keeper: Keeper
  readonly #unnamed: boolean
  readonly #liveSinceNs: bigint | undefined
  readonly #nowNs = BigInt(Date.now()) * 10n ** 6n
  readonly #inodes = new Map<string, Inode>()
  readonly #entries: EntriesByAge
  /** Names of inodes that have several, each with what it is or is in: with what they go is known once all is visited. */
  readonly #links: [Entry, Inode][] = []
  readonly #pointers: Pointer[] = []
  #fromFuture: Bytes | undefined
  #usedBytes = 0
  #allocatedBytes = 0
  #usedInodes = 0
  /** Bytes of files that go with an entry, hard links not counted. */
  #named = 0

  constructor(
    root: Bytes,
    overhead: Overhead,
    ruleOf: RuleOf,
    keeper: Keeper,
    { most = MOST_ENTRIES, which = 'oldest', unnamed = false, liveSinceNs }: MeasureOptions,
  ) {
    this.#root = root
    this.#work = `${root}/${WORK}`
    this.#overhead = overhead
    this.#ruleOf = ruleOf
    this.#keeper = keeper
    this.#entries = new EntriesByAge(root, most, which)
    this.#unnamed = unnamed
    this.#liveSinceNs = liveSinceNs
  }

  isExact({ path, data: owner }: Folder<Owner>, name: Bytes): boolean {
    return (
      this.#unnamed ||
      (owner !== undefined && owner !== 'kept') ||
      this.#ruleOf(path, name, 'any') !== undefined
    )
  }

  visit(folder: Folder<Owner>, name: Bytes, stats: Stats | BigIntStats): Owner {
    const owner = folder.data
    const { nameBytes, nameFactor } = this.#overhead
    const ofName = nameBytes + nameFactor * name.length
    const taken = allocatedOf(stats, this.#overhead)
    const bytes = chargeOf(stats, this.#overhead, taken) + ofName
    const allocatedBytes = taken + ofName
    if (owner === undefined) this.#notePointer(folder.path, name, stats)
    if (!isExact(stats)) {
      this.#charge(bytes, allocatedBytes)
      return owner
    }
    const isFolder = stats.isDirectory()
    const inode = stats.nlink > 1n && !isFolder ? this.#countName(stats, bytes) : undefined
    if (!inode || inode.names === 1) this.#charge(bytes, allocatedBytes)
    else this.#add(ofName, ofName)
    if (owner === 'kept') return owner
    if (this.#keeper.keepsInode(stats)) owner?.keep()
    const rule = this.#ruleFor(folder, name, stats)
    const timeNs = this.#believedTime(stats, folder.path, name)
    if (rule === undefined || rule === 'kept') {
      if (owner) {
        owner.touch(stats.mtimeNs, timeNs)
        if (inode) this.#links.push([owner, inode])
        else owner.add(bytes)
      }
      if (rule === undefined) {
        if (owner && !owner.isKept && !inode) this.#named += bytes
        return owner
      }
      owner?.keep()
      this.#entries.keep(folder.label, name)
      return isFolder ? 'kept' : owner
    }
    const entry = new Entry(folder, name, stats, timeNs, rule, owner)
    if (inode) this.#links.push([entry, inode])
    else entry.add(bytes)
    if (this.#keeper.keeps(entry)) {
      entry.keep()
      this.#entries.keep(folder.label, name)
    } else {
      if (!inode) this.#named += bytes
      this.#entries.add(entry)
    }
    if (isFolder) return entry
    entry.fold()
    return owner
  }

  leave(owner: Owner): void {
    if (owner !== 'kept') owner?.fold()
  }

  async close(rootStats: Stats): Promise<Measurement> {
    this.#charge(chargeOf(rootStats, this.#overhead), allocatedOf(rootStats, this.#overhead))
    const slice = new Slice()
    for (const [entry, inode] of this.#links) {
      entry.goer?.link(inode)
      if (slice.isOver()) await slice.next()
    }
    const sets = await arrange(this.#entries.list().filter(({ entry }) => !this.#isLive(entry)))
    if (sets.length) notePointers(this.#root, this.#pointers, sets)
    const { isCut } = this.#entries
    const worth = worthPruning(sets.sort(compareSets))
    // Hard links of which others are not listed: none of them frees anything alone, but as many go as it takes.
    const isOfLinks = isCut && !worth.length
    const prunable = (isOfLinks ? sets : worth).flatMap(({ entries }) => entries)
    return {
      usedBytes: this.#usedBytes,
      allocatedBytes: this.#allocatedBytes,
      usedInodes: this.#usedInodes,
      prunableBytes: isCut ? this.#named : prunable.reduce((sum, { bytes }) => sum + bytes, 0),
      prunable,
      isCut,
      pointers: this.#pointers,
      fromFuture: this.#fromFuture,
    }
  }

  /** A time in the future is not believed: then that of the last change is, which nobody can set. */
  #believedTime({ mtimeNs, ctimeNs }: BigIntStats, folder: Bytes, name: Bytes): bigint {
    if (mtimeNs <= this.#nowNs + FUTURE_NS) return mtimeNs
    this.#fromFuture ??= `${folder}/${name}`
    return ctimeNs < this.#nowNs ? ctimeNs : this.#nowNs
  }

  /** Is a training that lives still writing it, by its name and its time? */
  #isLive({ rule, timeNs }: Entry): boolean {
    return rule === LEFTOVER.name && this.#liveSinceNs !== undefined && timeNs >= this.#liveSinceNs
  }

  #notePointer(folder: Bytes, name: Bytes, stats: Stats | BigIntStats): void {
    const isLink = stats.isSymbolicLink()
    if (!isLink && !(stats.isFile() && isPointerName(name))) return
    if (folder.length + name.length + 1 >= PATH_MAX) return // nobody can read it by this path
    const isOurs = OURS.some(ours => isWithin(folder, `${this.#work}/${ours}`))
    if (this.#pointers.length < MOST_POINTERS && isWithin(folder, this.#work) && !isOurs)
      this.#pointers.push({ folder, name, isLink })
  }

  /** The rule that allows a name to be pruned; `kept` if it must stay because a rule names it. */
  #ruleFor({ path, label }: Folder<Owner>, name: Bytes, stats: BigIntStats): Rule | 'kept' | undefined {
    if (isTooDeep(path)) return undefined
    const isFolder = stats.isDirectory()
    const rule =
      isFolder || stats.isFile() ? this.#ruleOf(path, name, isFolder ? 'folder' : 'file') : undefined
    if (!this.#unnamed || rule === 'kept') return rule
    if (rule !== undefined && rule.rank !== RANK.temporary) return 'kept'
    const isOurs = label === this.#work && OURS.includes(name)
    return isWithin(label, this.#work) && !isOurs ? (rule ?? UNNAMED) : undefined
  }

  #charge(bytes: number, allocatedBytes: number): void {
    this.#add(bytes, allocatedBytes)
    this.#usedInodes++
  }

  #add(bytes: number, allocatedBytes: number): void {
    this.#usedBytes += bytes
    this.#allocatedBytes += allocatedBytes
  }

  #countName(stats: BigIntStats, bytes: number): Inode {
    const id = inodeId(stats)
    const inode = this.#inodes.get(id) ?? { id, bytes, names: 0, pruned: 0 }
    this.#inodes.set(id, inode)
    inode.names++
    return inode
  }
}

/** How deletions after a violation are told. */
export const UNNAMED: Rule = { name: `${WORK}/**`, rank: RANK.temporary }

/**
 * The real path of a folder.
 *
 * @throws {TrainerError} `storage`: it is missing, no folder, or a link, which may lead to anything
 */
export function findRoot(dir: string): Bytes {
  let isFolder: boolean
  try {
    isFolder = lstatSync(dir).isDirectory()
    if (isFolder) return realpathSync.native(dir, 'latin1')
  } catch (cause) {
    throw new TrainerError('storage', `Cannot measure ${dir}: ${messageOf(cause)}`, { cause })
  }
  throw new TrainerError(
    'storage',
    `Cannot measure ${dir}: it is not a folder, or a link to one; name the folder itself`,
  )
}

/** The real path of a job's output folder, by that of its own folder. */
export function findWork(jobDir: string): Bytes {
  return `${findRoot(jobDir)}/${WORK}`
}

function isExact(stats: Stats | BigIntStats): stats is BigIntStats {
  return typeof stats.ino === 'bigint'
}

/** Charge one inode, in bytes, without its names. */
export function chargeOf(
  stats: Stats | BigIntStats,
  overhead: Overhead,
  allocatedBytes = allocatedOf(stats, overhead),
): number {
  return stats.isFile() ? Math.max(Number(stats.size) + overhead.inodeBytes, allocatedBytes) : allocatedBytes
}

/** The largest file that btrfs keeps with its name (`max_inline`), and the longest text of a link. */
const MOST_INLINE = { file: 2048, link: 4096 }

/** Tell what one inode takes on the disk, in bytes, without its names. */
export function allocatedOf(stats: Stats | BigIntStats, { inodeBytes, inlineFactor }: Overhead): number {
  const blockBytes = Number(stats.blocks) * 512 + inodeBytes
  if (inlineFactor === 1) return blockBytes
  const mostBytes = stats.isFile() ? MOST_INLINE.file : stats.isSymbolicLink() ? MOST_INLINE.link : 0
  const size = Number(stats.size)
  return size > mostBytes ? blockBytes : Math.max(blockBytes, Math.ceil(size * inlineFactor) + inodeBytes)
}

/** One look at a job's folder, and at the filesystem that it is on. */
export type Look = Measurement & { freeBytes: number; freeInodes: number }

/** Walk the folder. */
export async function lookAt(dir: string, options: MeasureOptions = {}): Promise<Look> {
  const measurement = await measure(dir, options)
  const { freeBytes, freeInodes } = accountOf(dir)
  return { ...measurement, freeBytes, freeInodes }
}
