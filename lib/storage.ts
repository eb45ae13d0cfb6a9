import { TrainerError, type Usage } from './errors.ts'
import { accountOf } from './storage/capacity.ts'
import type { Entry } from './storage/entry.ts'
import { findExcess } from './storage/excess.ts'
import { type MeasureOptions, measure } from './storage/measure.ts'
import { type PruneListener, pruneOldest } from './storage/prune.ts'
import { describeRest } from './storage/rest.ts'
import { syncFilesystem } from './system/durable.ts'
import { escapeText, formatBytes, MIB } from './text.ts'

export type EnforceOptions = MeasureOptions &
  PruneListener & {
    /** Delete nothing; tell what would be deleted. */
    dryRun?: boolean
    /** Stops between deletions; its reason is thrown. */
    signal?: AbortSignal
    /** Where that is not enough, does what no rule names in `work/` go as well, as after a violation, before it is described? */
    removesExcess?: boolean
  }

/** Other programs may write checkpoints as fast as they are deleted. */
const MAX_ROUNDS = 10

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
  const faults = new Set<string>()
  const onFault = (message: string) => {
    if (!faults.has(message)) options.onFault?.(message)
    faults.add(message)
  }
  const { dryRun } = options
  let freedBytes = 0
  for (let round = 0; round < MAX_ROUNDS; ) {
    const { before, after, freed, isOver, isCut } = await pruneOnce(dir, limitBytes, {
      ...options,
      ...all,
      onFault,
    })
    freedBytes += freed
    if (after <= limitBytes && (dryRun || before <= limitBytes)) return { usedBytes: after, freedBytes }
    if (dryRun || isOver) throw await tooLarge(dir, after, limitBytes, options, faults)
    if (!isCut) round++
  }
  const { usedBytes } = await measure(dir, options)
  if (usedBytes <= limitBytes) return { usedBytes, freedBytes }
  throw await tooLarge(dir, usedBytes, limitBytes, options, faults)
}

/** Measure and prune. The list of what may go is large: it ends with this call, so there are never two. */
async function pruneOnce(
  dir: string,
  limitBytes: number,
  options: EnforceOptions,
): Promise<{ before: number; after: number; freed: number; isOver: boolean; isCut: boolean }> {
  const { usedBytes: before, prunable, isCut } = await measure(dir, options)
  const need = { usedBytes: before, targetBytes: limitBytes }
  const pruned = await pruneOldest(dir, prunable, { ...options, ...need })
  const { usedBytes: after, freedBytes: freed, removedCount } = pruned
  return { before, after, freed, isOver: removedCount === 0 && after === before, isCut }
}

/**
 * Delete checkpoints and temporary files, oldest first, until a folder's filesystem has so many bytes and inodes free by its own
 * account.
 *
 * @returns whether it has
 */
export async function pruneForRoom(
  dir: string,
  room: { bytes: number; inodes: number },
  options: EnforceOptions,
): Promise<boolean> {
  for (let round = 0; ; round++) {
    const { usedBytes, usedInodes, freeBytes, freeInodes } = accountOf(dir)
    const missing = { bytes: room.bytes - freeBytes, inodes: room.inodes - freeInodes }
    if (missing.bytes <= 0 && missing.inodes <= 0) return true
    if (round === MAX_ROUNDS) return false
    const { prunable } = await measure(dir, options)
    const { removedCount } = await pruneOldest(dir, prunable, {
      ...options,
      usedBytes,
      targetBytes: usedBytes - Math.max(0, missing.bytes),
      usedInodes,
      targetInodes: usedInodes - Math.max(0, missing.inodes),
    })
    if (!removedCount) return false
    await syncFilesystem(dir) // some account for it late
  }
}

/**
 * Delete files in the folder's `work/` that no rule names, without a count of all, until usage is back at the limit: what a
 * training that violated its limit has left.
 *
 * @returns those that are gone, the usage then, and whether that is all; of very many small ones some stay
 */
export async function removeExcess(
  dir: string,
  { usedBytes, limitBytes }: Usage,
  rules: MeasureOptions & PruneListener,
): Promise<{ gone: Entry[]; usedBytes: number; isAll: boolean }> {
  const gone: Entry[] = []
  let left = usedBytes
  // It may have grown on until the last of its processes was dead: more and more is looked for then, as long as there is so much.
  for (
    let enoughBytes = usedBytes - limitBytes, smallRounds = 0;
    enoughBytes > 0 && smallRounds < MAX_ROUNDS;
  ) {
    const { found, smallCount, isCut } = await findExcess(dir, rules, enoughBytes)
    const all = { usedBytes: left, targetBytes: Number.NEGATIVE_INFINITY, cutsShort: true }
    const { usedBytes: after, freedBytes, broken } = await pruneOldest(dir, found, { ...rules, ...all })
    gone.push(...found.filter(({ set }) => !broken.has(set)))
    left = after
    if (!freedBytes || (freedBytes < enoughBytes && !isCut)) return { gone, usedBytes: left, isAll: true }
    if (smallCount < found.length) enoughBytes *= 4
    else smallRounds++
  }
  return { gone, usedBytes: left, isAll: false }
}

/**
 * Delete what processes that are dying are still writing to, by calls that no signal ends: files in the folder's `work/` that no
 * rule names, and those of checkpoints that were written to since then.
 */
export async function removeGrowing(
  dir: string,
  sinceNs: bigint,
  rules: MeasureOptions & PruneListener,
): Promise<Entry[]> {
  const { found } = await findExcess(dir, rules, Number.POSITIVE_INFINITY, sinceNs)
  const all = { usedBytes: 0, targetBytes: Number.NEGATIVE_INFINITY, cutsShort: true }
  await pruneOldest(dir, found, { ...rules, ...all })
  return found
}

/**
 * Delete everything in the folder's `work/` that no rule names, whether it takes blocks or not: what a training that
 * violated its limit has left unpublished, but for its checkpoints. What there is too much of goes first, as {@link removeExcess} does.
 */
export async function removeUnnamed(
  dir: string,
  usage: Usage,
  rules: MeasureOptions & PruneListener,
): Promise<void> {
  await removeExcess(dir, usage, rules)
  while (await removeOnce(dir, rules)) {
    // More than are listed at a time.
  }
}

/** @returns whether there may be more that goes */
async function removeOnce(dir: string, rules: MeasureOptions & PruneListener): Promise<boolean> {
  const { prunable, isCut, ...used } = await measure(dir, { ...rules, unnamed: true })
  const largestFirst = prunable.toSorted((a, b) => b.set.bytes - a.set.bytes)
  const need = { ...used, targetBytes: 0, targetInodes: 0 }
  const { removedCount } = await pruneOldest(dir, largestFirst, { ...rules, ...need })
  return isCut && removedCount > 0
}

/**
 * Say why nothing is left to prune in a folder that is above its limit, as {@link describeRest} does; first what no rule names
 * goes, where that is asked for.
 */
export async function describeViolation(
  dir: string,
  usage: Usage,
  options: EnforceOptions,
  faults: Iterable<string> = [],
): Promise<string> {
  const removes = options.removesExcess && !options.dryRun
  const { gone } = removes ? await removeExcess(dir, usage, options) : { gone: [] }
  return describeRest(dir, options, { faults, gone })
}

async function tooLarge(
  dir: string,
  usedBytes: number,
  limitBytes: number,
  options: EnforceOptions,
  faults: Set<string>,
): Promise<TrainerError> {
  const rest = await describeViolation(dir, { usedBytes, limitBytes }, options, faults)
  return new TrainerError(
    'quota-exceeded',
    `Model too large for quota: ${escapeText(dir)} holds ${formatBytes(usedBytes)} with nothing left to prune, ` +
      `its limit is ${formatBytes(limitBytes)}; ${rest}raise the limit or remove what is not needed`,
    { usage: { usedBytes, limitBytes } },
  )
}
