import {
  type BigIntStats,
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  statfsSync,
  statSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isErrno, messageOf, TrainerError } from '../errors.ts'

/** The reason why a file cannot be used, as the end of a sentence that begins with its name: `is empty`. */
export class UnusableFile extends Error {
  override readonly name = 'UnusableFile'
}

/** Counts the names of a file that the caller knows to be its own. */
export type Recognise = (name: string, stats: BigIntStats) => number

/**
 * Look at a file without opening it.
 *
 * @param name path below `folder`; every folder on it must be a real one
 * @param recognise called for a file of several names; by default no other name than this one is known
 * @throws {UnusableFile} for anything but a regular file all of whose names are known: by a link or another hard link it
 * could be changed from outside, and opening a FIFO or a device blocks or has effects
 */
export function statPlain(folder: string, name: string, recognise?: Recognise): BigIntStats {
  const parts = name.split('/')
  const last = parts.pop()!
  let path = folder
  for (const part of parts) {
    path = join(path, part)
    const kind = kindOf(statOrMissing(path))
    if (kind !== 'a folder') throw new UnusableFile(`is not inside a folder: ${part} is ${kind}`)
  }
  return assertPlain(statOrMissing(join(path, last)), name, recognise)
}

/**
 * Open a file for reading, under the conditions of {@link statPlain}. Never waits for a FIFO's writer.
 *
 * @returns the descriptor, for the caller to close, and the file's state when it was opened
 * @throws {UnusableFile} as {@link statPlain}, and if the file is swapped meanwhile
 */
export function openPlain(
  folder: string,
  name: string,
  recognise?: Recognise,
): { fd: number; stats: BigIntStats } {
  const seen = statPlain(folder, name, recognise)
  const fd = openSync(join(folder, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const stats = assertPlain(fstatSync(fd, { bigint: true }), name, recognise)
    if (stats.ino !== seen.ino || stats.dev !== seen.dev) throw new UnusableFile('is being replaced')
    return { fd, stats }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/**
 * Open a file that an operator has named, behind a link too. Never waits for a FIFO's writer.
 *
 * @returns the descriptor, for the caller to close, and the file's state
 * @throws {UnusableFile} for anything but a regular file
 */
export function openNamed(path: string): { fd: number; stats: BigIntStats } {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const stats = fstatSync(fd, { bigint: true })
  if (stats.isFile()) return { fd, stats }
  closeSync(fd)
  throw new UnusableFile(`is ${kindOf(stats)}, not a regular file`)
}

/** @throws {UnusableFile} for anything but a folder, such as a link to one, which would lead elsewhere */
export function assertFolder(path: string): void {
  const kind = kindOf(statOrMissing(path))
  if (kind !== 'a folder') throw new UnusableFile(`is ${kind}, not a folder`)
}

/** Return a path, or the nearest path above it that is there and that this user can see. */
export function nearestVisible(path: string): string {
  try {
    statSync(path)
    return path
  } catch {
    return nearestVisible(dirname(path))
  }
}

/**
 * Read the whole content of a small file.
 *
 * @throws {UnusableFile} as {@link openPlain}, and if it has more than `maxBytes`
 */
export function readPlain(folder: string, name: string, maxBytes: number, recognise?: Recognise): string {
  const { fd, stats } = openPlain(folder, name, recognise)
  try {
    if (stats.size > maxBytes) throw new UnusableFile(`has ${stats.size} bytes, at most ${maxBytes} are read`)
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

/**
 * Hash an open file's content by SHA-256, in hex. Reads it in pieces, between which signals and the screen are served.
 */
export async function sha256(fd: number): Promise<string> {
  const { createHash } = await import('node:crypto')
  const hash = createHash('sha256')
  const content = createReadStream('', { fd, start: 0, autoClose: false, highWaterMark: 2 ** 20 })
  for await (const piece of content) hash.update(piece)
  return hash.digest('hex')
}

/**
 * Return the reason why a file is not usable. An error of the system (no permission, a bad sector) is a reason too: a
 * model that cannot be read is of no use.
 *
 * @throws any other error, as it is: a defect of ours
 */
export function reasonOf(error: unknown): string {
  if (error instanceof UnusableFile) return error.message
  if (error instanceof Error && 'syscall' in error) return `cannot be read (${error.message})`
  throw error
}

function statOrMissing(path: string): BigIntStats {
  try {
    return lstatSync(path, { bigint: true })
  } catch (cause) {
    if (!isErrno(cause, 'ENOENT', 'ENOTDIR')) throw cause
    // A listing turns bytes that are not UTF-8 into U+FFFD, and the name that results is no file's.
    throw new UnusableFile(
      basename(path).includes('\ufffd') ? 'has a name that is not UTF-8' : 'is missing',
      { cause },
    )
  }
}

function assertPlain(stats: BigIntStats, name: string, recognise?: Recognise): BigIntStats {
  if (!stats.isFile()) throw new UnusableFile(`is ${kindOf(stats)}, not a regular file`)
  if (stats.nlink !== 1n && Number(stats.nlink) !== recognise?.(name, stats))
    throw new UnusableFile(`has ${stats.nlink} hard links, so it can change under another name`)
  return stats
}

function kindOf(stats: BigIntStats): string {
  if (stats.isFile()) return 'a regular file'
  if (stats.isDirectory()) return 'a folder'
  if (stats.isSymbolicLink()) return 'a symbolic link'
  if (stats.isFIFO()) return 'a FIFO'
  if (stats.isSocket()) return 'a socket'
  return 'a device'
}

/** Identify a file whatever it is called. */
export function inodeId({ dev, ino }: Record<'dev' | 'ino', number | bigint>): string {
  return `${dev}:${ino}`
}

/**
 * Does the folder exist?
 *
 * @throws {TrainerError} `storage` if something else has its place
 */
export function folderExists(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false })
  // Newer versions of Node.js take what is below a file for missing; this fails in every one.
  if (!stats) lstatSync(path, { throwIfNoEntry: false })
  if (stats && !stats.isDirectory())
    throw new TrainerError('storage', `${path} is a file, expected a folder; move it away`)
  return stats !== undefined
}

/**
 * Make a folder (0750) unless it is there.
 *
 * @throws {TrainerError} `storage` if it cannot be made, or a link has its place, which would lead deletions elsewhere
 */
export function makeFolder(path: string): void {
  try {
    makeFolders(path)
  } catch (cause) {
    if (cause instanceof TrainerError) throw cause
    const remedy = outOfInodes(cause, path) ?? 'this user must be able to write there'
    throw new TrainerError('storage', `Cannot make ${path}: ${messageOf(cause)}; ${remedy}`, { cause })
  }
  if (lstatSync(path).isSymbolicLink()) {
    throw new TrainerError('storage', `Cannot use ${path}: it is a symbolic link; remove it`)
  }
}

/** Give the remedy for a refusal of the system to make a file, if no inode is left where `path` would be. */
export function outOfInodes(cause: unknown, path: string): string | undefined {
  if (!isErrno(cause, 'ENOSPC')) return undefined
  const { files, ffree } = statfsSync(nearestVisible(path))
  return files > 0 && ffree === 0
    ? 'no inode is left on that disk: delete files there, whatever their size'
    : undefined
}

/**
 * Make a folder and those above it. Node's `recursive: true` would never return from a path below /proc in Node.js 20.
 */
export function makeFolders(path: string): void {
  if (folderExists(path)) return
  makeFolders(dirname(path))
  try {
    mkdirSync(path, { mode: 0o750 })
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error // else another starter was first
  }
}
