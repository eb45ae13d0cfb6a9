import { basename } from 'node:path'
import type { PrunedPath } from '../run.ts'

/** How programs complain of something that is not there. */
const complaint =
  /no such file|not found|\b(?:could|can) ?not\b|n't (?:find|exist|locate|load|open)|does not exist|\bmissing\b|\bunable\b|failed to|\bENOENT\b|\[Errno 2\]/i

/** A name that says nothing by itself, such as `best`. */
const isPlain = (name: string) => name.length < 8 && !/\d/.test(name)
/** A name that a line repeats is looked at so often: there may be a thousand names, and hundreds of places for each. */
const MOST_PLACES = 16
const bounds = /[\s'"`‘’“”:;,()<>[\]{}=]/

/**
 * Find what was pruned that a line is about: by its path, or where the line has a relative one, by its name.
 *
 * @param pruned in this run; the newest last
 */
export function findPruned(line: string, pruned: PrunedPath[]): PrunedPath | undefined {
  return pruned.findLast(({ path }) => names(line, path))
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

function names(line: string, path: string): boolean {
  const name = basename(path)
  let at = line.indexOf(name)
  for (let place = 0; at >= 0 && place < MOST_PLACES; place++, at = line.indexOf(name, at + 1)) {
    // `checkpoint-20` is not what `checkpoint-200` is about.
    if (/[\w-]/.test(line[at - 1] ?? '') || /[\w-]/.test(line[at + name.length] ?? '')) continue
    let start = at
    while (start > 0 && !bounds.test(line[start - 1]!)) start--
    const before = line.slice(start, at + name.length)
    const isPath = before.includes('/')
    if (before.startsWith('/') ? before === path : isPath || !isPlain(name)) return true
  }
  return false
}
