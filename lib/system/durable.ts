import { execFile } from 'node:child_process'
import { accessSync, constants, realpathSync, statSync } from 'node:fs'
import { lstat, mkdir, open, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { outOfInodes } from './plain-file.ts'
import { safePath } from './programs.ts'

/** Make a folder's entries survive a power cut: without this, a rename can come back undone. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Make a file's content survive a power cut. After a failure it must not be tried again: the data may be gone. */
export async function syncFile(path: string): Promise<void> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Write out what the filesystem of a folder has in memory, for a minute at most: some free deleted files only then. */
export async function syncFilesystem(path: string): Promise<void> {
  const options = { env: { PATH: safePath }, timeout: 60_000 }
  await promisify(execFile)('sync', ['--file-system', path], options).catch(() => {}) // what it is for will show
}

/**
 * The file whose place a result written to `path` takes: what links there lead to.
 *
 * @throws {TrainerError} `storage` if it is no regular file (a device must not become one), or its folder takes none
 */
export function outputFile(path: string): string {
  const refuse = (reason: string, cause?: unknown) =>
    new TrainerError('storage', `Cannot write ${path}: ${reason}; choose another --out`, { cause })
  try {
    const stats = statSync(path, { throwIfNoEntry: false })
    if (stats && !stats.isFile()) throw refuse('it is not a regular file')
    const target = stats ? realpathSync(path) : join(realpathSync(dirname(path)), basename(path))
    accessSync(dirname(target), constants.W_OK | constants.X_OK)
    return target
  } catch (cause) {
    if (cause instanceof TrainerError) throw cause
    throw refuse(messageOf(cause), cause)
  }
}

/** Write a new file so that it survives a power cut; after a failure it is gone. Replaces a leftover of that name. */
export async function writeDurably(path: string, content: string): Promise<void> {
  await rm(path, { force: true })
  try {
    await writeFile(path, content, { flag: 'wx', mode: 0o644, flush: true })
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
}

/**
 * Move a file to the same name below another folder of the same filesystem, durably, replacing what has that name
 * there: a reader finds the old file or the new one. Folders on its way are made.
 */
export async function moveDurably(from: string, to: string, name: string): Promise<void> {
  let folder = to
  for (const part of name.split('/').slice(0, -1)) {
    folder = join(folder, part)
    await makeFolderDurably(folder)
  }
  await rename(join(from, name), join(to, name))
  await syncFolder(folder)
}

async function makeFolderDurably(path: string): Promise<void> {
  try {
    await mkdir(path, 0o750)
  } catch (error) {
    // A link there would lead the file elsewhere.
    if (isErrno(error, 'EEXIST') && (await lstat(path)).isDirectory()) return
    throw error
  }
  await syncFolder(dirname(path))
}

/** A refusal of the system as an error that an operator can act on; any other error as it is. */
export function storageError(subject: string, cause: unknown): unknown {
  if (!isSystemError(cause)) return cause
  // Node has no name for EDQUOT.
  const code = cause.errno === -122 ? 'EDQUOT' : (cause.code ?? '')
  const message = code === 'EDQUOT' ? `EDQUOT: disk quota exceeded, ${cause.syscall}` : cause.message
  const remedy = (cause.path && outOfInodes(cause, cause.path)) || remedies[code]
  return new TrainerError('storage', `${subject}: ${message}${remedy ? `; ${remedy}` : ''}`, { cause })
}

const remedies: Record<string, string> = {
  ENOSPC: 'free some space on that disk',
  EDQUOT: 'free some space, or raise the quota of that disk',
  EIO: 'check that disk',
  EROFS: 'mount that disk writable',
  EISDIR: 'a folder stands where that file belongs; move it away',
  ERR_FS_EISDIR: 'a folder stands where that file belongs; move it away',
  EXDEV: 'work/ must be on the same filesystem as the folder it is in',
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}
