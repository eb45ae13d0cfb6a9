import type { Usage } from '../errors.ts'
import { worthPruning } from '../storage/arrange.ts'
import type { Entry, PrunableSet } from '../storage/entry.ts'
import { newestOfFamilies } from '../storage/families.ts'
import type { Measurement } from '../storage/measure.ts'
import { type PruneResult, pruneOldest } from '../storage/prune.ts'
import { describeRest } from '../storage/rest.ts'
import { findFresh, spare } from '../storage/spare.ts'
import { escapeBytes } from '../system/bytes.ts'
import { cutBack, type Ending } from './cut-back.ts'
import { openEntries } from './held-files.ts'

/** So many faults are told; a training can make a million. */
const MOST_FAULTS = 16

export type Chooser = Ending & {
  /** Aborted when the run is to end. */
  interruption?: AbortSignal
}

type Found = Pick<Measurement, 'prunable' | 'isCut'>

/** Chooses what goes while a training runs, and remembers why the rest stays. */
export class Choice {
  readonly #chooser: Chooser
  /** When the training began. */
  readonly #sinceNs = BigInt(Date.now()) * 10n ** 6n
  /** The bytes of each set when the training last ran. */
  #sizes = new Map<string, number>()
  /** Paths of the sets of which a part could not be deleted. */
  readonly #broken = new Set<string>()
  readonly #faults = new Set<string>()
  #spared = new Map<PrunableSet, string>()
  /** So many files and folders were pruned. */
  prunedCount = 0

  constructor(chooser: Chooser) {
    this.#chooser = chooser
  }

  /** Note how large everything is while the training runs: what grows until the next look is being written. */
  noteSizes({ prunable }: Found): void {
    this.#sizes = new Map(setsOf(prunable).map(({ path, bytes }) => [path, bytes]))
  }

  /**
   * Choose what may go while the training stands still, the first to go first. What the training may be about to rename goes
   * after all older checkpoints. The newest complete checkpoint of each pattern of names goes only if nothing else is left: one
   * that is written rarely may be the best. What a link or a file points to, and caches that hold nothing, go only if even then
   * nothing is left and it is the `last` resort.
   */
  async choose({ prunable, isCut }: Found, isLast: boolean): Promise<PrunableSet[]> {
    const { dir, training } = this.#chooser
    const open = new Set([...(await openEntries(prunable, training.processes(), dir))].map(({ set }) => set))
    const sets = setsOf(prunable)
    const situation = { isOpen: (set: PrunableSet) => open.has(set), sizes: this.#sizes, isCut }
    this.#spared = spare(sets, { ...situation, broken: this.#broken })
    const left = sets.filter(set => !this.#spared.has(set))
    const plain = left.filter(({ pointer, isEmptyCache }) => pointer === undefined && !isEmptyCache)
    const newest = newestOfFamilies(sets, this.#spared, this.#broken)
    const fresh = findFresh(sets, this.#sinceNs)
    const settled = plain.filter(set => !fresh.has(set))
    const isOlder = (set: PrunableSet) => !newest.has(set)
    for (const stage of [settled.filter(isOlder), plain.filter(isOlder), plain, isLast ? left : []]) {
      const chosen = worthPruning(stage)
      if (chosen.length) return chosen
    }
    for (const set of left) {
      const { pointer, path } = set
      if (pointer === path) this.#spared.set(set, 'the last or best one, by its name')
      else if (pointer !== undefined) this.#spared.set(set, `named by ${escapeBytes(pointer)}`)
    }
    return []
  }

  /** Prune what was chosen, as {@link pruneOldest} does. */
  async prune(sets: PrunableSet[], need: Parameters<typeof pruneOldest>[2]): Promise<PruneResult> {
    const { dir, onPrune, onFault } = this.#chooser
    const entries = sets.flatMap(set => set.entries)
    const pruned = await pruneOldest(dir, entries, {
      ...need,
      onPrune: it => {
        this.prunedCount++
        onPrune(it)
      },
      onFault: message => {
        if (this.#faults.size < MOST_FAULTS && !this.#faults.has(message)) {
          this.#faults.add(message)
          onFault(message)
        }
      },
    })
    for (const { path } of pruned.broken) this.#broken.add(path)
    return pruned
  }

  /**
   * Bring a training that has passed its limit, and is dead or dying, back inside it.
   *
   * @param prunable what was spared for its sake when it was counted; undefined if it wrote too fast to be counted
   * @returns what stayed by the rules and why, as {@link describeRest} does, what has gone now among it
   */
  async endPassed(usage: Usage, prunable: Entry[] | undefined, dying: Promise<void>): Promise<string> {
    const { dir, rules, interruption } = this.#chooser
    const { gone, faults } = await cutBack(this.#chooser, usage, prunable, dying)
    const signal = interruption && { signal: interruption }
    const reasons = { faults: new Set([...this.#faults, ...faults]), spared: this.#spared, gone }
    return describeRest(dir, { ...rules, ...signal }, reasons)
  }
}

function setsOf(entries: Entry[]): PrunableSet[] {
  return [...new Set(entries.map(({ set }) => set))]
}
