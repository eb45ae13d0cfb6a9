import { constants, setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { EventBody } from '../events.ts'
import { accountOf, freeSpace } from '../storage/capacity.ts'
import { type Look, lookAt, type MeasureOptions } from '../storage/measure.ts'
import { type Entry, worthPruning } from '../storage/prunable.ts'
import { type Pruned, pruneOldest } from '../storage.ts'
import { inodeId } from '../system/plain-file.ts'
import { deletedBytes, diskFull, type Limit, limitReached } from './limit.ts'
import { listOpenFiles } from './open-files.ts'
import type { Training } from './process.ts'
import { temporaryFolder } from './sandbox.ts'

const FREEZE_ABOVE = 0.9
const PRUNE_TO = 0.8
const MIN_WAIT_MS = 10
const MAX_WAIT_MS = 1000
/** A writer that has not shown itself yet is taken for one of this many bytes a millisecond (256 MiB/s). */
const ASSUMED_BYTES_PER_MS = 262_144
/** A thread that waits for a slow disk stops when its system call returns; it is not hurried while all is well. */
const FREEZE_DEADLINE_MS = 10_000

export type Watch = Limit & {
  /** Left free on the disk for the rest of the machine; zero where the job has a filesystem of its own. */
  reserveBytes: number
  /** Is its folder a filesystem of its own? Then usage is one system call. */
  isCapped: boolean
  /** What may be pruned besides checkpoints and temporary files, and what must not. */
  rules: MeasureOptions
  training: Training
  emit: (event: EventBody) => void
  onLook: (look: Look) => void
  onPrune: (pruned: Pruned) => void
}

/**
 * Keep a running training inside its limit until `signal` says that it has ended. Above 90 % it is frozen, the
 * oldest checkpoints are pruned down to 80 %, and it is resumed. The next look comes the sooner the less room
 * there is for the fastest writer seen, between 10 ms and 1 s, and at once when the disk's free space says that
 * somebody is faster.
 *
 * @throws {TrainerError} `quota-exceeded`, or `no-space` if it is others who fill the disk; the training is dead then
 */
export async function guard(watch: Watch, signal: AbortSignal): Promise<void> {
  preferUs()
  let fastestPerMs = ASSUMED_BYTES_PER_MS
  let before: { usedBytes: number; atMs: number } | undefined
  // When pruning found too little, freezing again at once would only stall it: half of the room must go first.
  let patienceBytes = 0

  while (!signal.aborted) {
    const atMs = performance.now()
    const freeBytes = freeSpace(watch.dir)
    const look = await glance(watch)
    const tookMs = performance.now() - atMs
    watch.onLook(look)
    if (before)
      fastestPerMs = Math.max(fastestPerMs, (look.usedBytes - before.usedBytes) / (atMs - before.atMs))
    before = { usedBytes: look.usedBytes, atMs }

    const freezeAbove = Math.max(FREEZE_ABOVE * limitNow(watch, look), patienceBytes)
    const roomBytes = Math.max(0, freezeAbove - look.usedBytes)
    if (!roomBytes) {
      const relieved = await relieve(watch, look.usedBytes)
      const limitBytes = limitNow(watch, relieved)
      const isTight = relieved.usedBytes > FREEZE_ABOVE * limitBytes
      patienceBytes = isTight ? relieved.usedBytes + (limitBytes - relieved.usedBytes) / 2 : 0
      before = undefined
    }
    const wait = {
      // A walk of a large tree must not take more than half of the time.
      leastMs: Math.max(MIN_WAIT_MS, tookMs),
      mostMs: Math.min(roomBytes / (2 * fastestPerMs), MAX_WAIT_MS),
      // A burst: half of the room is gone, whoever took it.
      freeBytes: freeBytes - roomBytes / 2,
    }
    await waitToLook(watch.dir, wait, signal)
  }
}

/** Wait, but no longer than the disk has `freeBytes`: to ask for that takes 3 µs, whatever the folder holds. */
async function waitToLook(
  dir: string,
  { leastMs, mostMs, freeBytes }: { leastMs: number; mostMs: number; freeBytes: number },
  signal: AbortSignal,
): Promise<void> {
  const startedMs = performance.now()
  for (let sliceMs = leastMs; !signal.aborted; sliceMs = Math.max(MIN_WAIT_MS, mostMs / 10)) {
    await delay(sliceMs, undefined, { signal }).catch(() => {})
    if (performance.now() - startedMs >= mostMs || freeSpace(dir) < freeBytes) return
  }
}

/** A busy machine must not make the guard late: ask to run first, where that is allowed. */
function preferUs(): void {
  try {
    setPriority(constants.priority.PRIORITY_HIGH)
  } catch {
    // Only a privileged user may.
  }
}

/** Usage by the cheapest means that counts all of it. */
async function glance({ dir, isCapped, rules, training }: Watch): Promise<Look> {
  if (isCapped) return { ...accountOf(dir), prunable: [] }
  const look = await lookAt(dir, rules)
  return { ...look, usedBytes: look.usedBytes + deletedBytes(dir, training) }
}

/** The quota, or what others leave of the disk, whichever is less. */
function limitNow({ limitBytes, reserveBytes }: Watch, { usedBytes, freeBytes }: Look): number {
  return Math.min(limitBytes, usedBytes + freeBytes - reserveBytes)
}

/** Freeze, measure, prune, measure, resume; or kill, if that does not help. */
async function relieve(watch: Watch, usedBytes: number): Promise<Look> {
  const { job, dir, training, emit } = watch
  const startedMs = performance.now()
  let isStopped = training.stop()
  emit({ event: 'train.freeze', job, usedBytes })
  let look = await glance(watch)
  while (!isStopped && look.usedBytes <= limitNow(watch, look)) {
    if (performance.now() - startedMs > FREEZE_DEADLINE_MS) break
    await delay(2)
    isStopped = training.stop()
    look = await glance(watch)
  }

  const { prunable } = watch.isCapped ? await lookAt(dir, watch.rules) : look
  const targetBytes = PRUNE_TO * limitNow(watch, look)
  await pruneOldest(dir, spare(prunable, watch), { ...look, targetBytes, onPrune: watch.onPrune })
  look = await glance(watch)
  watch.onLook(look)
  if (look.usedBytes > limitNow(watch, look)) {
    await training.kill()
    throw look.usedBytes > watch.limitBytes
      ? limitReached(watch, look, 'had nothing left to prune and was killed')
      : diskFull(watch, look)
  }
  training.resume()
  emit({ event: 'train.resume', job, usedBytes: look.usedBytes, pausedMs: performance.now() - startedMs })
  return look
}

/**
 * Without what must stay while the training runs: files that it has open, because unlinking those frees nothing,
 * and its newest complete checkpoint under all of its names, because that is what it would resume from.
 */
function spare(prunable: Entry[], { dir, training }: Watch): Entry[] {
  const open = listOpenFiles(training.processes())
  const ids = new Set(open.map(({ id }) => id))
  const tmp = join(dir, 'work', 'tmp')
  const paths = open.flatMap(({ path }) => [path, path.replace(temporaryFolder, tmp)])
  const closed = prunable.filter(entry => {
    const inside = `${entry.path}/`
    return !ids.has(inodeId(entry)) && !paths.some(path => path.startsWith(inside))
  })
  const newest = closed.findLast(({ rule }) => rule !== '*.tmp')
  return worthPruning(closed.filter(entry => entry !== newest))
}
