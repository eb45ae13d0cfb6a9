import { closeSync, constants, fstatSync, openSync, readlinkSync, readSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { type Bytes, native } from '../system/bytes.ts'
import type { PrunableSet } from './entry.ts'
import { Belonging } from './naming.ts'

// Which checkpoint a training would go on with, or wants in the end, is said by links and small files beside them.

/** A link, or a file of a known name, that names a checkpoint. */
export type Pointer = { folder: Bytes; name: Bytes; isLink: boolean }

/** So many are looked at; a training has a handful. */
export const MOST_POINTERS = 256
const MOST_BYTES = 64 * 1024

/** Reads the checkpoint's path out of what a file holds. */
type Form = (text: Bytes) => Bytes | undefined

const firstLine: Form = text => /^[^\r\n]+/.exec(text.trim())?.[0]

const FORMS: Record<string, Form> = {
  // tf.train.CheckpointManager: a text protobuf, CheckpointState.
  checkpoint: text => /^\s*model_checkpoint_path:\s*"([^"]*)"/m.exec(text)?.[1],
  // DeepSpeed's save_checkpoint().
  latest: firstLine,
  latest_universal: firstLine,
  // Megatron-LM: the iteration, of a folder iter_0000100.
  'latest_checkpointed_iteration.txt': text => {
    const iteration = firstLine(text)
    return iteration && /^\d+$/.test(iteration) ? `iter_${iteration.padStart(7, '0')}` : iteration
  },
  // Detectron2 and fvcore.
  last_checkpoint: firstLine,
  best_checkpoint: firstLine,
}

const POINTER_NAMES = new Set(Object.keys(FORMS))

/** Transformers' Trainer: among the first of its keys, which are sorted; the steps so far follow, and may be megabytes. */
const TRAINER_STATE = 'trainer_state.json'
const bestOf: Form = text => {
  const [, path] = /"best_model_checkpoint":\s*("(?:[^"\\]|\\.)*")/.exec(text) ?? []
  return path && Buffer.from(parseText(Buffer.from(path, 'latin1').toString())).toString('latin1')
}

function parseText(json: string): string {
  try {
    return String(JSON.parse(json))
  } catch {
    return ''
  }
}

/** Is it the name of a file that names a checkpoint, and is none itself? */
export function isPointerName(name: Bytes): boolean {
  return POINTER_NAMES.has(name)
}

/**
 * Note at each set which link or file names it: of those given, and of the states that the newest folders of each pattern
 * hold.
 *
 * @param root the measured folder
 */
export function notePointers(root: Bytes, pointers: Pointer[], sets: PrunableSet[]): void {
  const byPath = new Map(sets.map(set => [set.path, set]))
  const belonging = new Belonging(root)
  const note = (folder: Bytes, target: Bytes | undefined, pointer: Bytes) => {
    const set = target ? findSet(root, folder, target, belonging, byPath) : undefined
    if (set) set.pointer ??= pointer
  }
  for (const { folder, name, isLink } of pointers) {
    const path = `${folder}/${name}`
    note(folder, isLink ? targetOf(path) : FORMS[name]?.(readStart(path)), path)
  }
  for (const set of newestFolders(sets)) {
    const path = `${set.entries[0]!.pathBytes}/${TRAINER_STATE}`
    note(dirname(set.path), bestOf(readStart(path)), path)
  }
}

/** The two newest of each pattern: one may be half-written. */
function newestFolders(sets: PrunableSet[]): PrunableSet[] {
  const newest = new Map<Bytes, PrunableSet[]>()
  for (const set of sets) {
    if (!set.place || !set.entries[0]!.isFolder) continue
    newest.set(set.place.pattern, [...(newest.get(set.place.pattern) ?? []), set].slice(-2))
  }
  return [...newest.values()].flat()
}

/** Find the set that a path, written in `folder`, leads to or into; or that has its last name, if it was another machine's. */
function findSet(
  root: Bytes,
  folder: Bytes,
  target: Bytes,
  belonging: Belonging,
  sets: Map<Bytes, PrunableSet>,
): PrunableSet | undefined {
  for (let path = resolve(folder, target); path.length > root.length; path = dirname(path)) {
    const set = sets.get(belonging.checkpointOf(dirname(path), basename(path))) ?? sets.get(path)
    if (set) return set
  }
  return (
    sets.get(belonging.checkpointOf(folder, basename(target))) ?? sets.get(join(folder, basename(target)))
  )
}

function targetOf(link: Bytes): Bytes | undefined {
  try {
    return readlinkSync(native(link), 'latin1')
  } catch {
    return undefined // gone, or no link any more
  }
}

/** Read the beginning of a file that a training may have put there: never a link, a FIFO or a device. */
function readStart(path: Bytes): Bytes {
  let fd: number | undefined
  try {
    fd = openSync(native(path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    if (!fstatSync(fd).isFile()) return ''
    const start = Buffer.alloc(MOST_BYTES)
    return start.toString('latin1', 0, readSync(fd, start))
  } catch {
    return '' // it names nothing then
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}
