import { TrainerError } from '../errors.ts'
import { escapeBytes } from '../system/bytes.ts'
import { Slice } from '../system/slice.ts'
import type { Entry, PrunableSet } from './entry.ts'
import { findRoot } from './measure.ts'
import { tellsOfBest } from './pointers.ts'
import { type Outcome, Remover } from './remove.ts'

/** One deletion: the bytes that came free, the entry's modification time (ISO 8601), the usage after it. */
export type Pruned = {
  path: string
  bytes: number
  mtime: string
  rule: string
  usedBytes: number
  /** The path of a link or file that named it as one to go on with; the beginning of its own, if its name said so. */
  pointer?: string
  /** That says it to be the best. */
  isBest?: true
}

/** Who is told of deletions. */
export type PruneListener = {
  /** Called at each deletion. */
  onPrune?: (pruned: Pruned) => void
  /** Called with a sentence about each thing that could not be deleted, or went in part. */
  onFault?: (message: string) => void
}

export type PruneOptions = PruneListener & {
  dryRun?: boolean
  signal?: AbortSignal
  /** See {@link Remover}. */
  cutsShort?: boolean
  usedBytes: number
  targetBytes: number
  /** If inodes are what there must be fewer of. */
  usedInodes?: number
  targetInodes?: number
}

/**
 * The result of pruning: how many entries went, the usage as computed, what came free, and the sets of which a part is left.
 */
export type PruneResult = {
  removedCount: number
  usedBytes: number
  freedBytes: number
  freedInodes: number
  broken: Set<PrunableSet>
}

/** Deleted at a time: many, because each batch waits for its last, and in few folders, because those stay open for it. */
const BATCH = { entries: 128, folders: 8 }

/**
 * Delete the first of `entries`, which {@link measure} has found in `dir`, until a usage of `usedBytes` is down to
 * `targetBytes`, and that of inodes to `targetInodes`; a set that has been begun goes whole. What was written to since
 * then is young now, and stays. What others delete meanwhile lowers the usage, but is not in `freedBytes`.
 *
 * @throws the reason of `signal`, between sets
 */
export async function pruneOldest(
  dir: string,
  entries: Entry[],
  options: PruneOptions,
): Promise<PruneResult> {
  const { dryRun, signal, cutsShort } = options
  const remover = new Remover(findRoot(dir), cutsShort)
  const pruning = new Pruning(entries, options)
  const slice = new Slice()
  const begin = async () => {
    const batch = await pruning.next(entry => dryRun || remover.isUnchanged(entry))
    return { batch, outcomes: dryRun ? [] : remover.remove(batch) }
  }
  try {
    for (let current = await begin(); current.batch.length; ) {
      // Deleted while what has gone is told.
      const following = await begin()
      const outcomes = await current.outcomes
      for (const [index, entry] of current.batch.entries())
        pruning.settle(entry, outcomes[index] ?? 'removed')
      if (slice.isOver()) await slice.next()
      current = following.batch.length ? following : await begin()
    }
  } finally {
    await remover.close()
  }
  signal?.throwIfAborted()
  return pruning.close()
}

/** Chooses what goes, and keeps the account. */
class Pruning {
  readonly #options: PruneOptions
  readonly #result: PruneResult
  readonly #queue: Iterator<Entry, undefined>
  /** Still to be freed, as if all goes that is being deleted. */
  readonly #need: { bytes: number; inodes: number }
  /** The set that is being deleted, or passed over. */
  #set: PrunableSet | undefined
  #goes = false
  #held: Entry | undefined
  /** Sets of which something went, and those of which something did not. */
  readonly #removed = new Set<PrunableSet>()
  readonly #left = new Set<PrunableSet>()

  constructor(entries: Entry[], options: PruneOptions) {
    const { usedBytes, targetBytes, usedInodes = 0, targetInodes = usedInodes } = options
    this.#options = options
    this.#queue = entries.values()
    this.#need = { bytes: usedBytes - targetBytes, inodes: usedInodes - targetInodes }
    this.#result = { removedCount: 0, usedBytes, freedBytes: 0, freedInodes: 0, broken: new Set() }
  }

  /** Take the entries that are to be deleted next; of a set of several, none if one of them is not as it was measured. */
  async next(isUnchanged: (entry: Entry) => boolean): Promise<Entry[]> {
    const slice = new Slice()
    const batch: Entry[] = []
    const folders = new Set<string>()
    while (batch.length < BATCH.entries) {
      if (slice.isOver()) await slice.next()
      const entry = this.#held ?? this.#queue.next().value
      this.#held = undefined
      if (!entry) break
      if (entry.set !== this.#set) {
        if (this.#options.signal?.aborted || !this.#isNeeding()) {
          this.#held = entry
          break
        }
        this.#set = entry.set
        const { entries } = entry.set
        this.#goes =
          entries.some(it => helps(it, this.#need)) &&
          (entries.length === 1 || (await all(entries, isUnchanged)))
      }
      if (!this.#goes) continue
      if (folders.add(entry.label).size > BATCH.folders) {
        this.#held = entry
        break
      }
      batch.push(entry)
      this.#need.bytes -= entry.bytes
      this.#need.inodes -= entry.ownInodes
    }
    return batch
  }

  /** Take down what has become of an entry. */
  settle(entry: Entry, outcome: Outcome): void {
    const { onPrune, onFault } = this.#options
    if (outcome instanceof TrainerError) onFault?.(outcome.message)
    if (outcome !== 'removed' && outcome !== 'gone') {
      this.#need.bytes += entry.bytes
      this.#need.inodes += entry.ownInodes
      this.#left.add(entry.set)
      // The rest of a folder is deleted when something in it cannot be.
      if (entry.isFolder && outcome instanceof TrainerError) this.#removed.add(entry.set)
      return
    }
    const freed = takeOff(entry)
    // The usage may have been told too low.
    this.#result.usedBytes = Math.max(0, this.#result.usedBytes - freed.bytes)
    if (outcome === 'gone') return
    if (entry.set.entries.length > 1) this.#removed.add(entry.set)
    this.#result.removedCount++
    this.#result.freedBytes += freed.bytes
    this.#result.freedInodes += freed.inodes
    onPrune?.(describe(entry, freed.bytes, this.#result.usedBytes))
  }

  close(): PruneResult {
    for (const set of this.#left) {
      if (!this.#removed.has(set)) continue
      this.#result.broken.add(set)
      this.#options.onFault?.(
        `${escapeBytes(set.shownPath)} was pruned in part: what is left of it is no whole checkpoint`,
      )
    }
    return this.#result
  }

  #isNeeding(): boolean {
    return this.#need.bytes > 0 || this.#need.inodes > 0
  }
}

/** Do all pass a test? Everything else has its turn meanwhile. */
async function all(entries: Entry[], test: (entry: Entry) => boolean): Promise<boolean> {
  const slice = new Slice()
  for (const entry of entries) {
    if (!test(entry)) return false
    if (slice.isOver()) await slice.next()
  }
  return true
}

/** Does its deletion free any of what is needed, now or with the other names of its inodes? */
function helps({ bytes, ownInodes, inodes }: Entry, need: { bytes: number; inodes: number }): boolean {
  return inodes.length > 0 || (need.bytes > 0 && bytes > 0) || (need.inodes > 0 && ownInodes > 0)
}

/** Tell what comes free with an entry: a hard link frees nothing until it is the last. */
function takeOff({ ownBytes, ownInodes, inodes }: Entry): { bytes: number; inodes: number } {
  const last = inodes.filter(inode => ++inode.pruned === inode.names)
  return {
    bytes: last.reduce((sum, { bytes }) => sum + bytes, ownBytes),
    inodes: ownInodes + last.length,
  }
}

function describe({ pathBytes, mtimeNs, rule, set }: Entry, bytes: number, usedBytes: number): Pruned {
  // A file's time may lie beyond what a Date can hold.
  const mtimeMs = Math.max(-8.64e15, Math.min(Number(mtimeNs / 1_000_000n), 8.64e15))
  const mtime = new Date(mtimeMs).toISOString()
  const isBest = set.pointer !== undefined && tellsOfBest(set.pointer) && ({ isBest: true } as const)
  const pointer = set.pointer === undefined ? {} : { pointer: escapeBytes(set.pointer), ...isBest }
  return { path: escapeBytes(pathBytes), bytes, mtime, rule, usedBytes, ...pointer }
}
