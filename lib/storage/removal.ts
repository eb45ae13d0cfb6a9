import { closeSync, fstatSync, lstatSync, openSync, rmdirSync, unlinkSync } from 'node:fs'
import { unlink } from 'node:fs/promises'
import { isErrno, type TrainerError } from '../errors.ts'
import { MIB } from '../quotas.ts'
import { emptyOpen, reachOf, undeletable } from './emptying.ts'
import { type Bytes, native } from './path.ts'
import type { Entry } from './prunable.ts'
import { FOLDER_FLAGS, VANISHED, walk } from './tree.ts'

const MAX_FOLDERS = 512
/** To free this much takes a filesystem so long that the screen and signals must not wait for it. */
const LARGE_BYTES = 64 * MIB

/**
 * Deletes measured entries of one folder. Every folder on the way is opened from the one above it, never through a
 * link, and names are given to the system relative to an open folder: whatever is swapped for a link meanwhile,
 * nothing outside is deleted.
 */
export class Remover {
  readonly #root: Bytes
  /** Open folders: entries of the same time are likely to be in the same few. */
  readonly #folders = new Map<Bytes, number>()

  constructor(root: Bytes) {
    this.#root = root
  }

  close(): void {
    for (const fd of this.#folders.values()) closeSync(fd)
    this.#folders.clear()
  }

  /**
   * Delete what was measured, and nothing that has taken its name since.
   *
   * @returns `gone` if others have deleted or moved it, `changed` if it was written to or is another one now; an error
   * that says why it cannot be deleted
   */
  async remove(entry: Entry): Promise<'removed' | 'gone' | 'changed' | TrainerError> {
    const path = `${entry.folder}/${entry.name}`
    try {
      const reach = native(`${reachOf(this.#enter(entry.folder))}/${entry.name}`)
      const stats = lstatSync(reach, { bigint: true })
      if (stats.ino !== entry.ino || stats.dev !== entry.dev) return 'changed'
      if (entry.isFolder) return await removeFolder(path, reach, entry)
      if (stats.mtimeNs !== entry.mtimeNs) return 'changed'
      if (stats.size < LARGE_BYTES) unlinkSync(reach)
      else await unlink(reach)
      return 'removed'
    } catch (cause) {
      if (isErrno(cause, ...VANISHED)) return 'gone'
      return undeletable(path, cause)
    }
  }

  #enter(path: Bytes): number {
    const known = this.#folders.get(path)
    if (known !== undefined) return known
    let at = this.#root
    let fd = this.#folders.get(at) ?? this.#open(at, at)
    for (const name of path.slice(at.length).split('/').slice(1)) {
      at += `/${name}`
      fd = this.#folders.get(at) ?? this.#open(at, `${reachOf(fd)}/${name}`)
    }
    return fd
  }

  #open(path: Bytes, reach: Bytes): number {
    const fd = openSync(native(reach), FOLDER_FLAGS)
    this.#folders.set(path, fd)
    for (const [oldest, oldFd] of this.#folders) {
      if (this.#folders.size <= MAX_FOLDERS) break
      this.#folders.delete(oldest)
      closeSync(oldFd)
    }
    return fd
  }
}

async function removeFolder(
  path: Bytes,
  reach: string | Buffer,
  { mtimeNs, ino }: Entry,
): Promise<'removed' | 'changed'> {
  const fd = openSync(reach, FOLDER_FLAGS)
  try {
    const stats = fstatSync(fd, { bigint: true })
    if (stats.ino !== ino || (await newestMtimeNs(fd, stats.mtimeNs)) !== mtimeNs) return 'changed'
    await emptyOpen(fd, path)
  } finally {
    closeSync(fd)
  }
  rmdirSync(reach)
  return 'removed'
}

async function newestMtimeNs(fd: number, ownMtimeNs: bigint): Promise<bigint> {
  let newest = ownMtimeNs
  await walk<void>(`${reachOf(fd)}/.`, undefined, {
    isExact: () => true,
    visit(_folder, _name, stats) {
      if ('mtimeNs' in stats && stats.mtimeNs > newest) newest = stats.mtimeNs
    },
  })
  return newest
}
