import { TrainerError } from './errors.ts'
import { findLargeUnnamed } from './storage/large-unnamed.ts'
import { type MeasureOptions, measure } from './storage/measure.ts'
import { type PruneListener, pruneOldest } from './storage/prune.ts'
import { describeRest } from './storage/rest.ts'
import { escapeText, formatBytes, MIB } from './text.ts'

export type EnforceOptions = MeasureOptions &
  PruneListener & {
    /** Delete nothing; tell what would be deleted. */
    dryRun?: boolean
    /** Stops between deletions; its reason is thrown. */
    signal?: AbortSignal
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
  const told = { ...options, onFault }
  let freedBytes = 0
  let isStuck = false
  for (let round = 0; ; ) {
    const { usedBytes, prunable, isCut } = await measure(dir, { ...options, ...all })
    if (usedBytes <= limitBytes) return { usedBytes, freedBytes }
    if (isStuck || round === MAX_ROUNDS) throw await tooLarge(dir, usedBytes, limitBytes, options, faults)
    const pruned = await pruneOldest(dir, prunable, { ...told, usedBytes, targetBytes: limitBytes })
    freedBytes += pruned.freedBytes
    if (options.dryRun) {
      if (pruned.usedBytes > limitBytes)
        throw await tooLarge(dir, pruned.usedBytes, limitBytes, options, faults)
      return { usedBytes: pruned.usedBytes, freedBytes }
    }
    isStuck = pruned.usedBytes === usedBytes
    if (!isCut) round++
  }
}

/**
 * Delete everything in the folder's `work/` that no rule names, whether it takes blocks or not: what a training that
 * violated its limit has left unpublished, but for its checkpoints. Large files go first, and down to the limit uncounted: until
 * then the quota is passed.
 */
export async function removeUnnamed(
  dir: string,
  { usedBytes, limitBytes }: { usedBytes: number; limitBytes: number },
  rules: MeasureOptions & PruneListener,
): Promise<void> {
  if (usedBytes > limitBytes) {
    const large = await findLargeUnnamed(dir, rules, usedBytes - limitBytes)
    await pruneOldest(dir, large, { ...rules, usedBytes, targetBytes: limitBytes })
  }
  for (;;) {
    const { prunable, isCut, ...used } = await measure(dir, { ...rules, unnamed: true })
    const largestFirst = prunable.toSorted((a, b) => b.set.bytes - a.set.bytes)
    const { freedInodes } = await pruneOldest(dir, largestFirst, {
      ...rules,
      ...used,
      targetBytes: 0,
      targetInodes: 0,
    })
    if (!isCut || !freedInodes) return
  }
}

async function tooLarge(
  dir: string,
  usedBytes: number,
  limitBytes: number,
  rules: MeasureOptions,
  faults: Set<string>,
): Promise<TrainerError> {
  const rest = await describeRest(dir, rules, { faults })
  return new TrainerError(
    'quota-exceeded',
    `Model too large for quota: ${escapeText(dir)} holds ${formatBytes(usedBytes)} with nothing left to prune, ` +
      `its limit is ${formatBytes(limitBytes)}; ${rest}raise the limit or remove what is not needed`,
    { usage: { usedBytes, limitBytes } },
  )
}
