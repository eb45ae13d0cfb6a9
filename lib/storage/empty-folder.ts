import { spawnSync } from 'node:child_process'
import { closeSync, fchmodSync, fstatSync, lstatSync, rmdirSync, unlinkSync } from 'node:fs'
import { isErrno } from '../errors.ts'
import type { Bytes } from '../system/bytes.ts'
import { safePath } from '../system/programs.ts'
import { Slice } from '../system/slice.ts'
import { Descent, openFolder, reachOf, undeletable } from './descent.ts'
import { Listing } from './walk.ts'

/**
 * Delete everything in a folder; a link in it goes as a link, and a filesystem mounted in it stays. What is immutable
 * root makes mutable first, and a btrfs subvolume is emptied and goes like a folder.
 *
 * @throws {TrainerError} `storage`: it is missing or a link, or something in it cannot be deleted; the rest is gone
 */
export async function emptyFolder(dir: string): Promise<void> {
  const path = Buffer.from(dir).toString('latin1')
  let fd: number
  try {
    fd = openFolder(dir)
  } catch (cause) {
    throw undeletable(path, cause)
  }
  try {
    await emptyOpen(fd, path)
  } finally {
    closeSync(fd)
  }
}

/** The same for a folder that is open; `path` is what messages call it. */
export async function emptyOpen(fd: number, path: Bytes): Promise<void> {
  const emptying = new Emptying()
  await new Descent(fd, path, {
    verb: 'delete',
    visit: descent => emptying.clear(descent),
    leave: (descent, name) => {
      descent.attempt(name, reach => emptying.remove(descent, () => rmdirSync(reach)))
    },
  }).run()
}

/**
 * Delete a file, or a folder with all in it; nothing there is no fault.
 *
 * @throws {TrainerError} `storage`: it is still there, or a part of it
 */
export async function removeWhole(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (!stats) return
  if (stats.isDirectory()) await emptyFolder(path)
  const remove = () => (stats.isDirectory() ? rmdirSync(path) : unlinkSync(path))
  try {
    try {
      remove()
    } catch (error) {
      if (!isErrno(error, 'EPERM') || !makeMutable(path)) throw error
      remove()
    }
  } catch (cause) {
    throw undeletable(Buffer.from(path).toString('latin1'), cause)
  }
}

class Emptying {
  readonly #slice = new Slice()
  #wasMadeMutable = false

  /** Delete what is no folder in the current one; @returns its folders */
  async clear(descent: Descent): Promise<Bytes[]> {
    const { current } = descent
    const folders: Bytes[] = []
    // Some caches keep their folders read-only.
    if ((fstatSync(current).mode & 0o700) !== 0o700) {
      descent.attempt('', () => this.remove(descent, () => fchmodSync(current, 0o700)))
    }
    const listing = new Listing(reachOf(current))
    try {
      for (let child = listing.nextName(); child !== undefined; child = listing.nextName()) {
        const name = child
        descent.attempt(name, reach => {
          this.remove(descent, () => {
            if (!unlinkFile(reach)) folders.push(name)
          })
        })
        if (this.#slice.isOver()) await this.#slice.next()
      }
    } finally {
      listing.close()
    }
    return folders
  }

  /** Do what deletes something; if it is refused as of something immutable, once more when nothing is that. */
  remove(descent: Descent, action: () => void): void {
    try {
      action()
    } catch (error) {
      if (!isErrno(error, 'EPERM') || this.#wasMadeMutable) throw error
      this.#wasMadeMutable = true
      if (!makeMutable(`/proc/${process.pid}/fd/${descent.top}/.`)) throw error
      action()
    }
  }
}

/** Only root may; @returns whether anything may have changed */
export function makeMutable(path: string): boolean {
  if (process.geteuid?.() !== 0) return false
  const options = { env: { PATH: safePath }, stdio: 'ignore' } as const
  return !spawnSync('chattr', ['-R', '-f', '-i', '-a', '--', path], options).error
}

/** @returns false if it is a folder */
function unlinkFile(reach: string | Buffer): boolean {
  try {
    unlinkSync(reach)
    return true
  } catch (error) {
    // In a folder that may not be changed the system says so before it says what this is.
    if (isErrno(error, 'EISDIR') || lstatSync(reach).isDirectory()) return false
    throw error
  }
}
