import { closeSync, fstatSync, lstatSync, openSync, rmdirSync, unlinkSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { emptyOpen, reachOf, undeletable } from './emptying.ts'
import { isErrno, type TrainerError } from './errors.ts'
import type { Entry } from './prunable.ts'
import { type Bytes, FOLDER_FLAGS, native, VANISHED, walk } from './tree.ts'

/**
 * Deletes measured entries of one folder. Every folder on the way is opened from the one above it, never through a
 * link, and names are given to the system relative to an open folder: whatever is swapped for a link meanwhile,
 * nothing outside is deleted.
 */
export class Remover {
  readonly #root: Bytes
  /** The folder of the last deletion; the next is often in the same. */
  #folder: { path: Bytes; fd: number } | undefined

  constructor(root: Bytes) {
    this.#root = root
  }

  close(): void {
    if (this.#folder) closeSync(this.#folder.fd)
    this.#folder = undefined
  }

  /**
   * Delete what was measured, and nothing that has taken its name since.
   *
   * @returns `gone` if others have deleted or moved it, `changed` if it was written to or is another one now; an error
   * that says why it cannot be deleted
   */
  async remove(entry: Entry): Promise<'removed' | 'gone' | 'changed' | TrainerError> {
    const path = entry.path.toString('latin1')
    try {
      const reach = native(`${reachOf(this.#enter(dirname(path)))}/${basename(path)}`)
      const stats = lstatSync(reach, { bigint: true })
      if (stats.ino !== entry.ino || stats.dev !== entry.dev) return 'changed'
      if (entry.isFolder) return await removeFolder(path, reach, entry)
      if (stats.mtimeNs !== entry.mtimeNs) return 'changed'
      unlinkSync(reach)
      return 'removed'
    } catch (cause) {
      if (isErrno(cause, ...VANISHED)) return 'gone'
      return undeletable(path, cause)
    }
  }

  #enter(path: Bytes): number {
    if (this.#folder?.path === path) return this.#folder.fd
    this.close()
    let fd = openSync(native(this.#root), FOLDER_FLAGS)
    for (const name of path.slice(this.#root.length).split('/').slice(1)) {
      const above = fd
      try {
        fd = openSync(native(`${reachOf(above)}/${name}`), FOLDER_FLAGS)
      } finally {
        closeSync(above)
      }
    }
    this.#folder = { path, fd }
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
