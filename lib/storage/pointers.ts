import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readlinkSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { type Bytes, native, PATH_MAX } from '../system/bytes.ts'
import type { Pointer, PrunableSet } from './entry.ts'
import { Belonging, isBestName, isTelling } from './naming.ts'
import { RANK } from './rank.ts'

// Which checkpoint a training would go on with, or wants in the end, is said by links and small files beside them.

/** So many are looked at; a training has a handful. */
export const MOST_POINTERS = 256
const MOST_BYTES = 64 * 1024
/** A checkpoint that is named lies no deeper: to look for it takes time that grows by the square of this. */
const MOST_LEVELS = 64

/** Reads the checkpoint's path out of what a file holds. */
type Form = (text: Bytes) => Bytes | undefined

const firstLine: Form = text => /^[^\r\n]+/.exec(text.trim())?.[0]

const FORMS: Record<string, Form> = {
  // tf.train.CheckpointManager: a text protobuf, CheckpointState.
  // A blank before it is none that ends a line: else each line break of many would be a beginning of all the rest.
  checkpoint: text => /^[ \t]*model_checkpoint_path:\s*"([^"]*)"/m.exec(text)?.[1],
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
 * Note at each set what names it: a link or file of those given, the state that a newest folder of a pattern holds, or its
 * own name.
 *
 * @param root the measured folder
 */
export function notePointers(root: Bytes, pointers: Pointer[], sets: PrunableSet[]): void {
  const byPath = new Map(sets.map(set => [set.path, set]))
  const belonging = new Belonging(root)
  const find = (folder: Bytes, target: Bytes | undefined) =>
    target && target.length < PATH_MAX ? findSet(root, folder, target, belonging, byPath) : undefined
  for (const pointer of pointers) {
    const set = find(pointer.folder, targetOf(pointer))
    set?.namedBy.push(pointer)
    if (set) set.pointer ??= pathOf(pointer)
  }
  for (const set of newestFolders(sets)) {
    const [first] = set.entries
    const path = `${first!.isFolder ? first!.pathBytes : first!.folder}/${TRAINER_STATE}`
    const best = find(dirname(set.path), bestOf(readStart(path)))
    if (best && !(best.pointer && tellsOfBest(best.pointer))) best.pointer = path
  }
  for (const set of newestTelling(sets)) set.pointer ??= set.path
}

/** The entries that their own name tells to be the last or the best: of one pattern, the newest. */
function newestTelling(sets: PrunableSet[]): Iterable<PrunableSet> {
  const telling = sets.filter(set => set.rank === RANK.checkpoint && isTelling(basename(set.path)))
  return new Map(telling.map(set => [set.place?.pattern ?? set.path, set])).values()
}

/**
 * Let a link or file that names a set name another one instead; where that cannot be, it goes. Call it only while nothing
 * else writes there.
 */
export function repoint(pointer: Pointer, from: PrunableSet, to: PrunableSet | undefined): void {
  const path = native(pathOf(pointer))
  const text = pointer.isLink ? (targetOf(pointer) ?? '') : readStart(pathOf(pointer))
  const [old, other] = [from, to].map(set => set && basename(set.path))
  // Megatron-LM's has the bare number.
  const isNumber = /^\s*\d+\s*$/.test(text)
  const next = other && (isNumber ? `${Number(/\d+$/.exec(other)?.[0])}` : text.replaceAll(old!, other))
  rmSync(path, { force: true })
  if (next === undefined || next === text) return
  if (pointer.isLink) symlinkSync(native(next), path)
  else writeFileSync(path, next, { encoding: 'latin1', flag: 'wx' })
}

/** The two newest of each pattern, which may be listed by their files: one may be half-written. */
function newestFolders(sets: PrunableSet[]): PrunableSet[] {
  const newest = new Map<Bytes, PrunableSet[]>()
  for (const set of sets) {
    const [first] = set.entries
    if (!set.place || !(first!.isFolder || first!.folder === set.path)) continue
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
  for (let path = outermost(resolve(folder, target), root); path.length > root.length; path = dirname(path)) {
    const set = sets.get(belonging.checkpointOf(dirname(path), basename(path))) ?? sets.get(path)
    if (set) return set
  }
  return (
    sets.get(belonging.checkpointOf(folder, basename(target))) ?? sets.get(join(folder, basename(target)))
  )
}

/** Cut a path to its outermost levels below `root`. */
function outermost(path: Bytes, root: Bytes): Bytes {
  let end = root.length
  for (let level = 0; level < MOST_LEVELS && end >= 0; level++) end = path.indexOf('/', end + 1)
  return end < 0 ? path : path.slice(0, end)
}

/** Does a link or file of this path, or a checkpoint by its own name, tell which the best one is? */
export function tellsOfBest(pointer: Bytes): boolean {
  return basename(pointer) === TRAINER_STATE || isBestName(basename(pointer))
}

/** The path of the link or file itself. */
export function pathOf({ folder, name }: Pointer): Bytes {
  return `${folder}/${name}`
}

/** The path that a pointer gives. */
function targetOf(pointer: Pointer): Bytes | undefined {
  const path = pathOf(pointer)
  if (!pointer.isLink) return FORMS[pointer.name]?.(readStart(path))
  try {
    return readlinkSync(native(path), 'latin1')
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
