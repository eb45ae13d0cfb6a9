import { chmodSync, closeSync, fchmodSync, fstatSync, lchownSync, lstatSync, opendirSync } from 'node:fs'
import { dirname } from 'node:path'
import { isErrno } from '../errors.ts'
import { foldersIn } from '../settings/layout.ts'
import type { Bytes } from '../system/bytes.ts'
import { makeFolder } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { Descent, openFolder, reachOf, type Stop, undeletable } from './descent.ts'
import { emptyFolder, makeMutable, removeWhole } from './empty-folder.ts'

/**
 * Make a training's output folder usable again, whatever a training has made of it: `tmp`, `cache` and `home` in it are
 * folders, made anew (0750) if they are missing or something else, the first is empty, and no folder keeps its owner out.
 * Files that are not temporary stay as they are.
 *
 * @throws {TrainerError} `storage`: something in it, or in its place, keeps it from being used; it is named, with the
 * remedy
 */
export async function mendWork(workDir: string): Promise<void> {
  const { tmpDir, cacheDir, homeDir } = foldersIn(dirname(workDir))
  // A link or a file in the place of this one is no training's doing, or was removed after it.
  makeFolder(workDir)
  openToOwner(workDir)
  for (const dir of [tmpDir, cacheDir, homeDir]) {
    const stats = lstatSync(dir, { throwIfNoEntry: false })
    if (stats && !stats.isDirectory()) await removeWhole(dir)
    makeFolder(dir)
  }
  await emptyFolder(tmpDir)
  await visitFolders(workDir, { visit: openUp, verb: 'use' })
}

function openToOwner(path: string): void {
  const { mode } = lstatSync(path)
  if ((mode & OWNER) !== OWNER) chmodSync(path, mode | OWNER)
}

/**
 * Give a folder and everything in it to a user and the group of the same number, but for files that have another name too,
 * which may be one elsewhere. What is in a folder that is that user's already is taken for given, except other users'
 * folders.
 *
 * @returns false if the filesystem has no such owners, or we may not give; the folder itself is as it was then
 * @throws {TrainerError} `storage`: something in it cannot be reached
 */
export async function giveFolder(dir: string, uid: number): Promise<boolean> {
  const give = () =>
    visitFolders(dir, {
      visit: descent => giveFiles(descent, uid),
      // After what is in it: one that is given is given whole.
      leave: (descent, name) => {
        descent.attempt(name, reach => lchownSync(reach, uid, uid))
      },
      verb: 'use',
    }).then(() => lchownSync(dir, uid, uid))
  try {
    await give().catch(async error => {
      if (!isRefusal(error) || !makeMutable(dir)) throw error
      await give()
    })
    return true
  } catch (error) {
    if (isRefusal(error)) return false
    throw error
  }
}

/** Make files the property of root, who publishes what another user's training has made. */
export function takeFiles(paths: string[]): void {
  if (process.geteuid?.() !== 0) return
  for (const path of paths) if (lstatSync(path).uid !== 0) lchownSync(path, 0, 0)
}

function isRefusal(error: unknown): boolean {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  return isErrno(cause, 'EPERM', 'EINVAL', 'ENOTSUP', 'EROFS')
}

async function visitFolders(dir: string, stop: Stop): Promise<void> {
  const path = Buffer.from(dir).toString('latin1')
  let fd: number
  try {
    fd = openFolder(dir)
  } catch (cause) {
    throw undeletable(path, cause)
  }
  try {
    await new Descent(fd, path, stop).run()
  } finally {
    closeSync(fd)
  }
}

/** The rights that the owner of a folder needs to use it. */
const OWNER = 0o700

const slice = new Slice()

async function openUp(descent: Descent): Promise<Bytes[]> {
  const { current } = descent
  const { mode } = fstatSync(current)
  if ((mode & OWNER) !== OWNER) descent.attempt('', () => fchmodSync(current, mode | OWNER))
  return listFolders(descent)
}

async function giveFiles(descent: Descent, uid: number): Promise<Bytes[]> {
  if (fstatSync(descent.current).uid === uid) return listFolders(descent)
  return listFolders(descent, name => {
    descent.attempt(name, reach => {
      if (lstatSync(reach).nlink === 1) lchownSync(reach, uid, uid)
    })
  })
}

/** @param take called for everything else */
async function listFolders({ current }: Descent, take?: (name: Bytes) => void): Promise<Bytes[]> {
  const folders: Bytes[] = []
  const listing = opendirSync(reachOf(current), { encoding: 'latin1', bufferSize: 512 })
  try {
    for (let entry = listing.readSync(); entry; entry = listing.readSync()) {
      if (entry.isDirectory()) folders.push(entry.name)
      else take?.(entry.name)
      if (slice.isOver()) await slice.next()
    }
  } finally {
    listing.closeSync()
  }
  return folders
}
