import { execFile } from 'node:child_process'
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { copyFile, lstat, mkdir, open, rename, rm, utimes, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { isErrno, isSystemError, messageOf, TrainerError } from '../errors.ts'
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

/** Make a file's content survive a power cut. Never retry after a failure: the data may be gone. */
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
 * Resolve the file that writing to `path` replaces, following links.
 *
 * @throws {TrainerError} `storage` if it is not a regular file (a device must not become one) or its folder is not
 * writable
 */
export function outputFile(path: string): string {
  const refuse = (reason: string, cause?: unknown) =>
    new TrainerError('storage', `Cannot write ${path}: ${reason}; choose another --out`, { cause })
  try {
    const stats = statSync(path, { throwIfNoEntry: false })
    if (stats && !stats.isFile()) throw refuse('it is not a regular file')
    const target = stats ? realpathSync(path) : join(realpathSync(dirname(path)), basename(path))
    accessSync(`${dirname(target)}/.`, constants.W_OK | constants.X_OK) // a file is no folder, whatever its mode
    return target
  } catch (cause) {
    if (cause instanceof TrainerError) throw cause
    throw refuse(messageOf(cause), cause)
  }
}

/** Write a new file that survives a power cut; a failure leaves none. Replaces a leftover of that name. */
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

/** Does the system refuse a file another name, though a copy may do? Some filesystems have no links, or few to a file. */
export function refusesLink(error: unknown): boolean {
  return isErrno(error, 'EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EINVAL', 'EMLINK')
}

/** Copy a file to a new name, with its modification time, so that the copy survives a power cut; a failure leaves none. */
export async function copyDurably(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_EXCL)
    const { atime, mtime } = await lstat(from)
    await utimes(to, atime, mtime)
    await syncFile(to)
  } catch (error) {
    await rm(to, { force: true })
    throw error
  }
}

/** Rename a file and make its new name survive a power cut. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await rename(from, to)
  await syncFolder(dirname(to))
}

/**
 * Replace a file by one that `make` writes beside it: the name always stands for a whole file, the old one or the new
 * one, through a crash and a power cut too. A failure leaves the old file as it was, and nothing beside it.
 *
 * @param make writes the new file under the name it is given, which is free
 * @param temporary that name; it must be of this process alone where others may write the same file
 * @throws what `make` throws, or the system's error
 */
export async function replaceDurably(
  path: string,
  make: (temporary: string) => Promise<void>,
  temporary = `${path}.tmp`,
): Promise<void> {
  await rm(temporary, { force: true })
  try {
    await make(temporary)
    await syncFile(temporary)
    await renameDurably(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

/**
 * Write a file (0644, less the umask), or replace it, as {@link replaceDurably} does.
 *
 * @throws {TrainerError} `storage`
 */
export async function replaceFile(path: string, content: string | Uint8Array): Promise<void> {
  try {
    await replaceDurably(path, temporary => writeFile(temporary, content, { flag: 'wx', mode: 0o644 }))
  } catch (cause) {
    throw storageError(`Cannot write ${path}`, cause)
  }
}

/**
 * Replace a file at once, readable by every user whatever the umask. A reader finds the old file or the new one; a
 * power cut may take both, so it is for what the next run writes again.
 *
 * @throws the system's error
 */
export function replaceFileSync(path: string, content: string): void {
  const temporary = `${path}.tmp`
  rmSync(temporary, { force: true })
  writeFileSync(temporary, content, { flag: 'wx' })
  chmodSync(temporary, 0o644)
  renameSync(temporary, path)
}

/**
 * Move a file durably to the same name below another folder of the same filesystem. It replaces a file of that name: a
 * reader finds the old file or the new one. Missing folders on its way are made.
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

/** Make a folder (0750) in one that is there, durably, unless it is there itself. */
export async function makeFolderDurably(path: string): Promise<void> {
  try {
    await mkdir(path, 0o750)
  } catch (error) {
    // Accept a folder only: a link would lead the file elsewhere.
    if (isErrno(error, 'EEXIST') && (await lstat(path)).isDirectory()) return
    throw error
  }
  await syncFolder(dirname(path))
}

/** Turn a refusal of the system into an error that an operator can act on. Returns any other error as it is. */
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
  ESTALE: 'mount that filesystem again',
  EACCES: 'this user must have access there',
  EPERM: 'something there may be immutable or append-only: lsattr shows it, chattr -ia ends it',
  EROFS: 'mount that disk writable',
  EISDIR: 'a folder stands where that file belongs; move it away',
  ERR_FS_EISDIR: 'a folder stands where that file belongs; move it away',
  EXDEV: 'work/ must be on the same filesystem as the folder it is in',
}

/** Close a descriptor of which no more is expected: Linux closes it, though a network filesystem that is gone says EIO. */
export function letGo(fd: number): void {
  try {
    closeSync(fd)
  } catch (error) {
    if (isErrno(error, 'EBADF')) throw error
  }
}
