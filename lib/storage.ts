import { TrainerError } from './errors.ts'
import { findRoot, type MeasureOptions, measure } from './storage/measure.ts'
import type { Entry } from './storage/prunable.ts'
import { Remover } from './storage/remove.ts'
import { Slice } from './storage/walk.ts'
import { escapeText, formatBytes, MIB } from './text.ts'

/** One deletion: the bytes that came free, the entry's modification time (ISO 8601), the usage after it. */
export type Pruned = { path: string; bytes: number; mtime: string; rule: string; usedBytes: number }

export type EnforceOptions = MeasureOptions & {
  /** Delete nothing; tell what would be deleted. */
  dryRun?: boolean
  /** Called at each deletion. */
  onPrune?: (pruned: Pruned) => void
  /** Stops between deletions; its reason is thrown. */
  signal?: AbortSignal
}

/** Other programs may write checkpoints as fast as they are deleted. */
const MAX_ROUNDS = 10
/** Deleted at a time: many, because each batch waits for its last, and in few folders, because those stay open for it. */
const BATCH = { entries: 128, folders: 8 }

/** The charged bytes of a folder, as {@link measure} counts them. */
export async function checkUsage(dir: string): Promise<number> {
  return (await measure(dir)).usedBytes
}

/**
 * Bring a folder's usage to `limitMb` (2^20 bytes each, fractions allowed) or less by deleting checkpoints and
 * temporary files, oldest first. Files in `keep` are never deleted, nor is anything outside the folder, whatever is
 * swapped for a link meanwhile. A `dryRun` computes its figures.
 *
 * @returns the usage at the end, measured anew, and the bytes freed
 * @throws {TrainerError} `quota-exceeded`, "Model too large for quota": deleting all that may be is not enough;
 * `storage`: the folder cannot be measured
 * @example await enforceLimit('/var/lib/ransomeye/models/core', 3072, { onPrune: ({ path }) => console.log(path) })
 */
export async function enforceLimit(
  dir: string,
  limitMb: number,
  options: EnforceOptions = {},
): Promise<{ usedBytes: number; freedBytes: number }> {
  if (!(limitMb > 0 && limitMb < Infinity))
    throw new RangeError(`limitMb is ${limitMb}, expected a number above 0`)
  return pruneTo(dir, limitMb * MIB, options)
}

/** Do as {@link enforceLimit}, with the limit in bytes. */
export async function pruneTo(
  dir: string,
  limitBytes: number,
  options: EnforceOptions = {},
): Promise<{ usedBytes: number; freedBytes: number }> {
  let freedBytes = 0
  let failures: string[] = []
  let isStuck = false
  for (let round = 0; ; round++) {
    const { usedBytes, prunable } = await measure(dir, options)
    if (usedBytes <= limitBytes) return { usedBytes, freedBytes }
    if (isStuck || round === MAX_ROUNDS) throw tooLarge(dir, usedBytes, limitBytes, failures)
    const pruned = await pruneOldest(dir, prunable, { ...options, usedBytes, targetBytes: limitBytes })
    freedBytes += pruned.freedBytes
    failures = pruned.failures
    if (options.dryRun) {
      if (pruned.usedBytes > limitBytes) throw tooLarge(dir, pruned.usedBytes, limitBytes, failures)
      return { usedBytes: pruned.usedBytes, freedBytes }
    }
    isStuck = pruned.usedBytes === usedBytes
  }
}

/**
 * Delete the oldest of `entries`, which {@link measure} has found in `dir`, until a usage of `usedBytes` is down to
 * `targetBytes`. One that was written to since then is young now, and stays. What others delete meanwhile lowers the
 * usage, but is not in `freedBytes`.
 *
 * @returns the usage as computed, and what could not be deleted, a sentence each
 */
export async function pruneOldest(
  dir: string,
  entries: Entry[],
  options: { usedBytes: number; targetBytes: number } & Pick<EnforceOptions, 'dryRun' | 'onPrune' | 'signal'>,
): Promise<{ usedBytes: number; freedBytes: number; failures: string[] }> {
  const { targetBytes, dryRun, onPrune, signal } = options
  const result = { usedBytes: options.usedBytes, freedBytes: 0, failures: [] as string[] }
  const remover = new Remover(findRoot(dir))
  const slice = new Slice()
  let start = 0
  /** As if all goes that is being deleted. */
  let expectedBytes = options.usedBytes
  const begin = () => {
    const batch = signal?.aborted ? [] : takeNeeded(entries, start, expectedBytes - targetBytes)
    start += batch.length
    expectedBytes -= sumOf(batch)
    return { batch, outcomes: dryRun ? [] : remover.remove(batch) }
  }
  try {
    for (let current = begin(); current.batch.length; ) {
      // Deleted while what has gone is told.
      const following = begin()
      const outcomes = await current.outcomes
      for (const [index, entry] of current.batch.entries()) {
        const outcome = outcomes[index] ?? 'removed'
        if (outcome instanceof TrainerError) result.failures.push(outcome.message)
        if (outcome !== 'removed' && outcome !== 'gone') {
          expectedBytes += entry.bytes
          continue
        }
        const bytes = takeBytes(entry)
        result.usedBytes -= bytes
        if (outcome === 'gone') continue
        result.freedBytes += bytes
        onPrune?.(describe(entry, bytes, result.usedBytes))
      }
      if (slice.isOver()) await slice.next()
      current = following.batch.length ? following : begin()
    }
  } finally {
    await remover.close()
  }
  signal?.throwIfAborted()
  return result
}

function sumOf(entries: Entry[]): number {
  return entries.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** The next entries, so few that each is needed to free `bytes` even if all before it do go. */
function takeNeeded(entries: Entry[], start: number, bytes: number): Entry[] {
  const batch: Entry[] = []
  const folders = new Set<string>()
  for (let left = bytes; left > 0 && batch.length < BATCH.entries; ) {
    const entry = entries[start + batch.length]
    if (!entry || folders.add(entry.folder).size > BATCH.folders) break
    batch.push(entry)
    left -= entry.bytes
  }
  return batch
}

/** What comes free with an entry: of a hard link nothing, until it is the last. */
function takeBytes({ ownBytes, inodes }: Entry): number {
  const last = inodes.filter(inode => ++inode.pruned === inode.names)
  return last.reduce((sum, { bytes }) => sum + bytes, ownBytes)
}

function describe({ path, mtimeNs, rule }: Entry, bytes: number, usedBytes: number): Pruned {
  // A file's time may lie beyond what a Date can hold.
  const mtimeMs = Math.max(-8.64e15, Math.min(Number(mtimeNs / 1_000_000n), 8.64e15))
  return { path: escapeText(path), bytes, mtime: new Date(mtimeMs).toISOString(), rule, usedBytes }
}

function tooLarge(dir: string, usedBytes: number, limitBytes: number, failures: string[]): TrainerError {
  const more = failures.length > 3 ? `; and ${failures.length - 3} more` : ''
  const kept = failures.length ? ` (${failures.slice(0, 3).join('; ')}${more})` : ''
  return new TrainerError(
    'quota-exceeded',
    `Model too large for quota: ${escapeText(dir)} holds ${formatBytes(usedBytes)} with nothing left to prune${kept}, ` +
      `its limit is ${formatBytes(limitBytes)}; raise the limit or remove what is not needed`,
    { usage: { usedBytes, limitBytes } },
  )
}
