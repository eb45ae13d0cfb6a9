import { escapeText } from '../text.ts'

/**
 * A path or a name as the kernel has it. Every character is one byte (Node calls this latin1): no name is ambiguous or
 * lost, and `<` compares raw bytes.
 */
export type Bytes = string

/** A folder of a walk. */
export type Folder<T> = {
  /** A deep path has megabytes: it is joined of parts that many share, until somebody compares or cuts it. */
  path: Bytes
  /** The path, as long as a program could name it; else its `head`, which many share, and the inode: named in little memory. */
  label: Bytes
  head: Bytes | undefined
  /** The path by which a system call reaches it, and of how many names that is. */
  reach: Bytes
  steps: number
  /** The visitor's data for it, and whether that is its own, not that of the folder above. */
  data: T
  isOwn: boolean
}

/** Return `path` in the form that Node hands on byte by byte. */
export function native(path: Bytes): string | Buffer {
  return /[\x80-\xff]/.test(path) ? Buffer.from(path, 'latin1') : path
}

/** Is `path` that folder, or below it? A deep path is read from a copy, and goes on sharing its parts. */
export function isWithin(path: Bytes, folder: Bytes): boolean {
  return `${path}/`.startsWith(`${folder}/`)
}

/** The longest path that a program can name, in bytes; see limits.h(0p). One may be longer, and is no better told by all of it. */
export const PATH_MAX = 4096

/** Escape `path` for people and logs. In the middle of one that is longer than a program can name stands `…`. */
export function escapeBytes(path: Bytes): string {
  if (path.length <= PATH_MAX) return escapeText(Buffer.from(path, 'latin1'))
  let [end, start] = [PATH_MAX / 2, path.length - PATH_MAX / 2]
  // Between two characters of UTF-8, which are four bytes at most.
  for (let n = 0; n < 3 && isContinuation(path, end); n++) end--
  for (let n = 0; n < 3 && isContinuation(path, start); n++) start++
  return `${escapeBytes(path.slice(0, end))}…${escapeBytes(path.slice(start))}`
}

function isContinuation(path: Bytes, index: number): boolean {
  return (path.charCodeAt(index) & 0xc0) === 0x80
}
