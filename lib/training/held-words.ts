import { basename } from 'node:path'
import { readProc } from '../system/processes.ts'
import { escapeText, formatBytes } from '../text.ts'
import { type HeldFile, type HeldFiles, heldFiles } from './held-files.ts'

/** A training that is above its limit must not wait for the words about it. */
const LOOK_MS = 300

/** Look what a training that stands still holds, for the words about it; undefined where that takes too long. */
export function lookAtHeld(pids: number[], dir: string, sinceMs: number): Promise<HeldFiles | undefined> {
  const signal = AbortSignal.timeout(LOOK_MS)
  return heldFiles(pids, { dir, sinceMs, isThorough: false, signal }).catch(() => undefined)
}

/**
 * Say what a training holds of its job's folder that nobody can see there: files that are deleted but open or mapped, as
 * batches of a DataLoader in /dev/shm are, and who holds them. As the middle of a sentence; empty if there are none. Call it
 * while the training lives: a process that has ended has no name.
 */
export function describeHeld(held: HeldFiles | undefined): string {
  if (!held?.deletedBytes) return ''
  const { deletedBytes, largest } = held
  const named = largest.length ? `: ${largest.map(describe).join(', ')}` : ''
  return `${formatBytes(deletedBytes)} of it are in deleted files that it holds${named}; `
}

function describe({ path, bytes, pid }: HeldFile): string {
  return `${escapeText(path)} (${formatBytes(bytes)}, held by ${escapeText(programOf(pid))}, pid ${pid})`
}

/** The program of a process, as it was called: some, like Node.js 26, give their first thread a name of its own. */
function programOf(pid: number): string {
  const [program] = readProc(`${pid}/cmdline`)?.split('\0') ?? []
  return basename(program || (readProc(`${pid}/comm`)?.trim() ?? ''))
}
