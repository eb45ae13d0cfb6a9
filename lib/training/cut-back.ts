import { setTimeout as delay } from 'node:timers/promises'
import { messageOf, type Usage } from '../errors.ts'
import type { Entry } from '../storage/entry.ts'
import { type MeasureOptions, measure } from '../storage/measure.ts'
import { type Pruned, type PruneListener, pruneOldest } from '../storage/prune.ts'
import { removeExcess, removeGrowing } from '../storage.ts'
import { escapeBytes } from '../system/bytes.ts'
import { growthCutter } from './cut-growth.ts'
import type { Training } from './process.ts'

/** What does not die at once is looked at so often. */
const CUT_EVERY_MS = 100
/** Most is dead by then. */
const FIRST_CUT_MS = 20

/** A training that is being ended, and who is told of what goes. */
export type Ending = Required<PruneListener> & {
  dir: string
  rules: MeasureOptions
  training: Training
  /** Throws once another run has the lock, or another folder the place of this one: nothing there is ours to delete then. */
  assertOurs?: () => void
}

/**
 * Delete what a training that has passed its limit, and is dead or dying, has too much of: files that no rule names, then
 * checkpoints. Until it is dead, what it still fills or keeps loses its content, wherever it is.
 *
 * @param prunable what may go by the count; undefined if it wrote too fast to be counted
 * @param dying resolves when it is dead
 * @returns what is deleted, and sentences about what went wrong: the violation is what counts
 */
export async function cutBack(
  { dir, rules, training, assertOurs, onPrune, onFault }: Ending,
  usage: Usage,
  prunable: Entry[] | undefined,
  dying: Promise<void>,
): Promise<{ gone: Entry[]; faults: string[] }> {
  const gone: Entry[] = []
  const faults: string[] = []
  const listening = { ...rules, onPrune, onFault }
  const sinceNs = BigInt(Date.now()) * 10n ** 6n
  const over = new AbortController()
  const dead = dying.finally(() => over.abort())

  const tryAll = async (...actions: (() => Promise<unknown>)[]) => {
    const endings = actions.map(async action => {
      assertOurs?.()
      await action()
    })
    for (const ending of await Promise.allSettled(endings))
      if (ending.status === 'rejected') faults.push(messageOf(ending.reason))
  }
  const untilDead = async (cut: () => Promise<unknown>, firstMs = CUT_EVERY_MS) => {
    for (let waitMs = firstMs; ; waitMs = CUT_EVERY_MS) {
      await Promise.race([dead, delay(waitMs)])
      if (over.signal.aborted) return
      await cut()
    }
  }
  const prune = async (entries: Entry[], usedBytes: number) => {
    const paths = new Set<string>()
    const take = (pruned: Pruned) => {
      paths.add(pruned.path)
      onPrune(pruned)
    }
    const need = { usedBytes, targetBytes: usage.limitBytes, cutsShort: true }
    await pruneOldest(dir, entries, { ...need, onPrune: take, onFault })
    gone.push(...entries.filter(({ pathBytes }) => paths.has(escapeBytes(pathBytes))))
  }
  const removeWritten = async () => {
    gone.push(...(await removeGrowing(dir, sinceNs, listening)))
  }
  const removeFound = async () => {
    const excess = await removeExcess(dir, usage, listening)
    gone.push(...excess.gone)
    if (prunable && excess.isAll) await prune(prunable, excess.usedBytes)
    await untilDead(removeWritten)
  }
  let leavesEmpty = false
  const cutGrowing = async () => {
    const isSandboxed = training.sandbox !== undefined
    const processes = () => training.processes()
    const cut = await growthCutter({ dir, rules, isSandboxed, processes, sinceNs })
    await untilDead(async () => {
      if (await cut(over.signal)) leavesEmpty = true
    }, FIRST_CUT_MS)
  }
  const pruneUncounted = async () => {
    const { usedBytes, prunable } = await measure(dir, rules)
    await prune(prunable, usedBytes)
  }

  await tryAll(cutGrowing, removeFound)
  await dead
  if (leavesEmpty) await tryAll(removeWritten)
  if (!prunable) await tryAll(pruneUncounted)
  return { gone, faults }
}
