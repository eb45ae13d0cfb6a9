import { close, closeSync, fchmodSync, fstatSync, lstatSync, openSync, rmdir, unlink } from 'node:fs'
import { isErrno, type TrainerError } from '../errors.ts'
import { type Bytes, native, PATH_MAX } from '../system/bytes.ts'
import { cutHoles, emptyAndClose, openToCut } from '../system/cut-short.ts'
import { Slice } from '../system/slice.ts'
import { reachOf, undeletable } from './descent.ts'
import { emptyOpen } from './empty-folder.ts'
import type { Entry } from './entry.ts'
import { FOLDER_FLAGS, VANISHED, walk } from './walk.ts'

/** Open at a time, so that it goes well with few descriptors too. */
const MAX_FOLDERS = 16

/**
 * The fate of an entry: `gone` if others have deleted or moved it, `changed` if it was written to or is another one
 * now; an error that says why it cannot be deleted.
 */
export type Outcome = 'removed' | 'gone' | 'changed' | TrainerError

/**
 * Deletes measured entries of one folder. Every folder on the way is opened from the one above it, never through a
 * link, and names are given to the system relative to an open folder: whatever is swapped for a link meanwhile,
 * nothing outside is deleted.
 */
export class Remover {
  readonly #root: Bytes
  readonly #cutsShort: boolean
  /** Open folders: entries of the same time are likely to be in the same few. */
  readonly #folders = new Map<Bytes, number>()
  /** How many deletions still refer to one of them by number: closed now, it could become another folder's. */
  readonly #uses = new Map<number, number>()
  #settled: Promise<unknown> = Promise.resolve()

  /**
   * @param cutsShort does a file lose its content too, where it has no other name? What still has it open or mapped would keep
   * its blocks, and by a call that no signal ends fill it further.
   */
  constructor(root: Bytes, cutsShort = false) {
    this.#root = root
    this.#cutsShort = cutsShort
  }

  /** Waits for what is being deleted. */
  async close(): Promise<void> {
    await this.#settled
    for (const fd of this.#folders.values()) closeSync(fd)
    this.#folders.clear()
  }

  /**
   * Delete what was measured, and nothing that has taken its name since. Files go side by side on the thread pool: that
   * is faster, and neither the screen nor signals wait for a filesystem that takes long to free gigabytes.
   */
  remove(entries: Entry[]): Promise<Outcome[]> {
    const removal = this.#removeAll(entries)
    this.#settled = Promise.allSettled([this.#settled, removal])
    return removal
  }

  async #removeAll(entries: Entry[]): Promise<Outcome[]> {
    const outcomes: (Outcome | Promise<Outcome>)[] = []
    const contents: number[] = []
    const slice = new Slice()
    for (const entry of entries) {
      // Side by side they would only wait for one another while what is cut short is still being filled.
      const isAlone = entry.isFolder || this.#cutsShort
      outcomes.push(isAlone ? await this.#begin(entry, contents) : this.#begin(entry, contents))
      if (slice.isOver()) await slice.next()
    }
    // To free gigabytes takes seconds, in which the last would grow on: by now none of them can.
    for (const fd of contents) await emptyAndClose(fd)
    return Promise.all(outcomes)
  }

  /** Is an entry still what was measured? Of a folder, only whether it is the same one. */
  isUnchanged(entry: Entry): boolean {
    try {
      return isSame(entry, this.#reach(entry).reach, this.#cutsShort)
    } catch {
      return true // the removal tells why
    }
  }

  #reach({ folder, name }: Entry): { fd: number; reach: string | Buffer } {
    const fd = this.#enter(folder)
    return { fd, reach: native(`${reachOf(fd)}/${name}`) }
  }

  /** @param contents gets the open file whose content is to go, which has no more room to grow in */
  #begin(entry: Entry, contents: number[]): Outcome | Promise<Outcome> {
    const path = entry.pathBytes
    const outcomeOf = (cause: unknown) => (isErrno(cause, ...VANISHED) ? 'gone' : undeletable(path, cause))
    try {
      const { fd: folder, reach } = this.#reach(entry)
      // What is still written to goes too, where it is to lose its content.
      if (!isSame(entry, reach, this.#cutsShort)) return 'changed'
      const content = this.#cutsShort && !entry.isFolder ? openContent(entry, reach) : undefined
      this.#count(folder, 1)
      return new Promise((resolve, reject) => {
        const settle = (outcome: Outcome) => {
          this.#count(folder, -1)
          if (content === undefined) return resolve(outcome)
          if (outcome !== 'removed') return close(content, () => resolve(outcome))
          contents.push(content)
          void cutHoles(content).then(() => resolve(outcome))
        }
        const end = (cause: unknown) => settle(cause ? outcomeOf(cause) : 'removed')
        // Some caches and trainings keep their folders read-only.
        const remove = (by: typeof unlink) =>
          by(reach, cause => (isErrno(cause, 'EACCES') && openUp(folder) ? by(reach, end) : end(cause)))
        if (entry.isFolder)
          emptyUnchanged(path, reach, entry)
            .then(isEmpty => (isEmpty ? remove(rmdir) : settle('changed')), end)
            .catch(reject)
        else remove(unlink)
      })
    } catch (cause) {
      return outcomeOf(cause)
    }
  }

  #count(folder: number, change: 1 | -1): void {
    const uses = (this.#uses.get(folder) ?? 0) + change
    if (uses) this.#uses.set(folder, uses)
    else this.#uses.delete(folder)
  }

  #enter(path: Bytes): number {
    const known = this.#folders.get(path)
    if (known !== undefined) return known
    const above = this.#openAbove(path)
    let fd = this.#folders.get(above) ?? this.#open(above, above)
    /** One on the way that does not stay open. */
    let passed: number | undefined
    try {
      for (let start = above.length, end = start; start < path.length; start = end) {
        const next = path.indexOf('/', start + 1)
        end = next < 0 ? path.length : next
        const reach = `${reachOf(fd)}${path.slice(start, end)}`
        // Only folders with entries stay open of longer paths: to look each up on the way takes the square of its length.
        const isKept = end === path.length || end <= PATH_MAX
        fd = isKept ? this.#open(path.slice(0, end), reach) : openSync(native(reach), FOLDER_FLAGS)
        if (passed !== undefined) closeSync(passed)
        passed = isKept ? undefined : fd
      }
    } finally {
      if (passed !== undefined) closeSync(passed)
    }
    return fd
  }

  /** The deepest folder on the way to a path that is open, or the topmost. */
  #openAbove(path: Bytes): Bytes {
    let deepest = this.#root
    for (const folder of this.#folders.keys())
      if (folder.length > deepest.length && path[folder.length] === '/' && path.startsWith(folder))
        deepest = folder
    return deepest
  }

  #open(path: Bytes, reach: Bytes): number {
    const fd = openSync(native(reach), FOLDER_FLAGS)
    this.#folders.set(path, fd)
    for (const [oldest, oldFd] of this.#folders) {
      if (this.#folders.size <= MAX_FOLDERS) break
      if (oldFd === fd || this.#uses.has(oldFd)) continue
      this.#folders.delete(oldest)
      closeSync(oldFd)
    }
    return fd
  }
}

function isSame({ ino, dev, isFolder, mtimeNs }: Entry, reach: string | Buffer, atAnyTime: boolean): boolean {
  const stats = lstatSync(reach, { bigint: true })
  return stats.ino === ino && stats.dev === dev && (isFolder || atAnyTime || stats.mtimeNs === mtimeNs)
}

/** Let the owner of a folder delete what is in it; @returns whether that is new */
function openUp(folder: number): boolean {
  const { mode } = fstatSync(folder)
  if ((mode & 0o300) === 0o300) return false
  try {
    fchmodSync(folder, mode | 0o300)
    return true
  } catch {
    return false // it is another user's
  }
}

/** Empty a folder that is still what was measured; @returns whether it is */
async function emptyUnchanged(
  path: Bytes,
  reach: string | Buffer,
  { mtimeNs, ino }: Entry,
): Promise<boolean> {
  const fd = openSync(reach, FOLDER_FLAGS)
  try {
    const stats = fstatSync(fd, { bigint: true })
    if (stats.ino !== ino || (await newestMtimeNs(fd, stats.mtimeNs)) !== mtimeNs) return false
    await emptyOpen(fd, path)
    return true
  } finally {
    closeSync(fd)
  }
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

/** Of a file with several names the others keep its content. */
function openContent({ dev, ino }: Entry, reach: string | Buffer): number | undefined {
  return openToCut(reach, it => it.dev === dev && it.ino === ino && it.nlink === 1n)
}
