import { escapeText } from '../text.ts'

/**
 * A path or a name as the kernel has it. Every character is one byte (Node calls this latin1): no name is ambiguous or
 * lost, and `<` compares raw bytes.
 */
export type Bytes = string

/** A folder of a walk: its path, the path by which a system call reaches it, and the visitor's data for it. */
export type Folder<T> = { path: Bytes; reach: Bytes; data: T }

/** Return `path` in the form that Node hands on byte by byte. */
export function native(path: Bytes): string | Buffer {
  return /[\x80-\xff]/.test(path) ? Buffer.from(path, 'latin1') : path
}

/** Escape `path` for people and logs. */
export function escapeBytes(path: Bytes): string {
  return escapeText(Buffer.from(path, 'latin1'))
}
