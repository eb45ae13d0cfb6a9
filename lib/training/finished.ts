import { rmSync } from 'node:fs'
import type { Job } from '../run.ts'
import { findWork } from '../storage/measure.ts'
import { pathOf } from '../storage/pointers.ts'
import { type Pruned, pruneOldest } from '../storage/prune.ts'
import { type Bytes, escapeBytes, native } from '../system/bytes.ts'
import { storageError } from '../system/durable.ts'
import { count } from '../text.ts'
import { measureCheckpoints, measureNamed } from './job-checkpoints.ts'

/** The names that programs give to the files that they go on from. */
const LOOKS_LIKE_A_CHECKPOINT = [
  '**/*.{checkpoint,ckpt,pt,pth,tar,h5,keras,safetensors,bin,npz,pkl,pickle,joblib}',
]

/**
 * Delete the checkpoints of a training that came to its end, and what names them; a dry run tells which.
 *
 * @param isRefused was its model refused, and not published?
 */
export async function removeFinished(job: Job, isRefused: boolean): Promise<void> {
  const { jobDir, name, run, emit, onPrune, onFault } = job
  const { dryRun } = run.command
  const which = { which: 'oldest', ...(dryRun && { most: Number.POSITIVE_INFINITY }) } as const
  let found = await measureCheckpoints(job, which)
  if (!found.prunable.length) return
  const { pointers } = found
  const sets = new Set(found.prunable.map(({ set }) => set)).size
  const message =
    `${isRefused ? "its last training's model was not accepted" : 'its last training has been published'}: ${found.isCut ? 'more than ' : ''}${count(sets, 'checkpoint')} of it ` +
    `${dryRun ? 'would be' : 'are'} deleted, so that this one begins anew; "resume": "always" in quotas.json keeps them`
  emit({ event: 'warning', job: name, message })
  const all = { targetBytes: 0, targetInodes: 0, signal: run.signal, dryRun }
  const listener = {
    onPrune: ({ pointer: _pointer, isBest: _isBest, ...pruned }: Pruned) => onPrune(pruned), // what names it goes too
    onFault,
  }
  // They name what is gone then. A link may be anything else.
  const naming = new Set(pointers.filter(({ isLink }) => !isLink).map(pathOf))
  // Where there are very many, they are listed and deleted in parts.
  for (;;) {
    for (const { set } of found.prunable) for (const pointer of set.namedBy) naming.add(pathOf(pointer))
    const { freedInodes } = await pruneOldest(jobDir, found.prunable, { ...found, ...all, ...listener })
    if (dryRun) return
    if (!found.isCut || !freedInodes) break
    found = await measureCheckpoints(job, which)
  }
  for (const path of naming) removeName(path)
}

function removeName(path: Bytes): void {
  try {
    rmSync(native(path), { force: true })
  } catch (cause) {
    throw storageError(`Cannot delete ${escapeBytes(path)}, which names a checkpoint that is gone`, cause)
  }
}

/** Name the files of a published training that are still in the output folder and may be checkpoints, the newest first. */
export async function namesOfStayed({ jobDir }: Job): Promise<string[]> {
  const { prunable } = await measureNamed(jobDir, { prune: LOOKS_LIKE_A_CHECKPOINT, which: 'newest' })
  const start = findWork(jobDir).length + 1
  return prunable.map(({ pathBytes }) => escapeBytes(pathBytes.slice(start))).reverse()
}
