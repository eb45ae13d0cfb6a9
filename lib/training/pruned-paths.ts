import { basename } from 'node:path'
import type { PrunedPath } from '../run.ts'

/** How programs complain of something that is not there. */
const complaint =
  /no such file|not found|\b(?:could|can) ?not\b|n't (?:find|exist|locate|load|open)|does not exist|\bmissing\b|\bunable\b|failed to|\bENOENT\b|\[Errno 2\]/i

/** A name that says nothing by itself, such as `best`. */
const isPlain = (name: string) => name.length < 8 && !/\d/.test(name)
/** In a line so many places are looked at, by so many lengths of names: only a hostile one has more. */
const MOST_PLACES = 2000
/** A name does not begin or end beside one of these: `checkpoint-20` is not what `checkpoint-200` is about. */
const inName = /[\w-]/
const bounds = /[\s'"`‘’“”:;,()<>[\]{}=]/

/**
 * Find what was pruned that a line is about: by its path, or where the line has a relative one, by its name.
 *
 * @param pruned in this run; the newest last
 */
export function findPruned(line: string, pruned: PrunedPath[]): PrunedPath | undefined {
  return new PrunedNames(pruned).find(line)
}

/** The pruned paths of a run, by their names: to compare a line with each of them takes milliseconds. */
export class PrunedNames {
  readonly newest: PrunedPath | undefined
  readonly #pruned: PrunedPath[]
  /** Where each path is in the list; and where the newest of each name is. */
  readonly #byPath = new Map<string, number>()
  readonly #byName = new Map<string, number>()
  readonly #lengths: number[]

  /** @param pruned the newest last */
  constructor(pruned: PrunedPath[]) {
    this.newest = pruned.at(-1)
    this.#pruned = [...pruned]
    for (const [index, { path }] of pruned.entries()) {
      this.#byPath.set(path, index)
      this.#byName.set(basename(path), index)
    }
    this.#lengths = [...new Set(Array.from(this.#byName.keys(), name => name.length))]
  }

  /** Find as {@link findPruned} does. */
  find(line: string): PrunedPath | undefined {
    let newest = -1
    let start = 0
    let places = 0
    for (let at = 0; at < line.length && places < MOST_PLACES; at++) {
      const before = line[at - 1] ?? ''
      if (inName.test(before)) continue
      if (bounds.test(before)) start = at
      for (const length of this.#lengths) {
        const end = at + length
        places++
        if (end > line.length || inName.test(line[end] ?? '')) continue
        const name = line.slice(at, end)
        const index = this.#byName.get(name)
        if (index === undefined || index <= newest) continue
        const path = line.slice(start, end)
        if (path.startsWith('/')) newest = Math.max(newest, this.#byPath.get(path) ?? -1)
        else if (path.includes('/') || !isPlain(name)) newest = Math.max(newest, index)
      }
    }
    return this.#pruned[newest]
  }
}

/** Does a line complain of something that is missing? */
export function isComplaint(line: string): boolean {
  return complaint.test(line)
}

/** Say what became of it and what would help. */
export function describePruned({ path, rule, time }: PrunedPath): string {
  return (
    `${path}, which this run pruned at ${time.slice(11, 19)} UTC to keep the quota (rule ${rule}): name in "keep" what must stay, ` +
    'or raise maxDiskMb'
  )
}
