import { TrainerError } from './errors.ts'
import { findRoot, type MeasureOptions, measure } from './storage/measure.ts'
import type { Entry } from './storage/prunable.ts'
import { Remover } from './storage/remove.ts'
import { Slice } from './system/slice.ts'
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
  // A dry run has to list everything that it would delete.
  const all = options.dryRun ? { most: Number.POSITIVE_INFINITY } : {}
  let freedBytes = 0
  let failures: string[] = []
  let isStuck = false
  for (let round = 0; ; ) {
    const { usedBytes, prunable, isCut } = await measure(dir, { ...options, ...all })
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
    if (!isCut) round++
  }
}

/**
 * Delete everything in the folder's `work/` that no rule names, whether it takes blocks or not: what a training that
 * violated its limit has left unpublished, but for its checkpoints.
 */
export async function removeUnnamed(
  dir: string,
  { onPrune, ...rules }: Pick<MeasureOptions, 'prune' | 'keep'> & Required<Pick<EnforceOptions, 'onPrune'>>,
): Promise<void> {
  for (;;) {
    const { prunable, isCut, ...used } = await measure(dir, { ...rules, unnamed: true })
    const { freedInodes } = await pruneOldest(dir, prunable, {
      ...used,
      targetBytes: 0,
      targetInodes: 0,
      onPrune,
    })
    if (!isCut || !freedInodes) return
  }
}

export type PruneOptions = Pick<EnforceOptions, 'dryRun' | 'onPrune' | 'signal'> & {
  usedBytes: number
  targetBytes: number
  /** If inodes are what there must be fewer of. */
  usedInodes?: number
  targetInodes?: number
}

/** The result of pruning: the usage as computed, and a sentence for each entry that could not be deleted. */
export type PruneResult = { usedBytes: number; freedBytes: number; freedInodes: number; failures: string[] }

/**
 * Delete the oldest of `entries`, which {@link measure} has found in `dir`, until a usage of `usedBytes` is down to
 * `targetBytes`, and that of inodes to `targetInodes`. One that was written to since then is young now, and stays. What
 * others delete meanwhile lowers the usage, but is not in `freedBytes`.
 */
export async function pruneOldest(
  dir: string,
  entries: Entry[],
  options: PruneOptions,
): Promise<PruneResult> {
  const { targetBytes, usedInodes = 0, targetInodes = usedInodes, dryRun, onPrune, signal } = options
  const result: PruneResult = {
    usedBytes: options.usedBytes,
    freedBytes: 0,
    freedInodes: 0,
    failures: [],
  }
  const remover = new Remover(findRoot(dir))
  const slice = new Slice()
  /** Still to be freed, as if all goes that is being deleted. */
  const need = { bytes: options.usedBytes - targetBytes, inodes: usedInodes - targetInodes }
  const queue = entries.values()
  let held: Entry | undefined
  const begin = () => {
    const batch: Entry[] = []
    const folders = new Set<string>()
    while (!signal?.aborted && batch.length < BATCH.entries && (need.bytes > 0 || need.inodes > 0)) {
      const entry: Entry | undefined = held ?? queue.next().value
      held = undefined
      if (!entry) break
      if (!helps(entry, need)) continue
      if (folders.add(entry.folder).size > BATCH.folders) {
        held = entry
        break
      }
      batch.push(entry)
      need.bytes -= entry.bytes
      need.inodes -= entry.ownInodes
    }
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
          need.bytes += entry.bytes
          need.inodes += entry.ownInodes
          continue
        }
        const freed = takeOff(entry)
        result.usedBytes -= freed.bytes
        if (outcome === 'gone') continue
        result.freedBytes += freed.bytes
        result.freedInodes += freed.inodes
        onPrune?.(describe(entry, freed.bytes, result.usedBytes))
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
