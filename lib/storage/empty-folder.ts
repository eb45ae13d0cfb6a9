import {
  chmodSync,
  closeSync,
  fchmodSync,
  fstatSync,
  lstatSync,
  openSync,
  rmdirSync,
  unlinkSync,
} from 'node:fs'
import { isErrno, TrainerError } from '../errors.ts'
import { type Bytes, escapeBytes, native } from '../system/bytes.ts'
import { Slice } from '../system/slice.ts'
import { FOLDER_FLAGS, Listing } from './walk.ts'

/** Names a folder without a right to read it; see open(2). Node.js has no constant for it. */
const O_PATH = 0o10000000

/**
 * Delete everything in a folder; a link in it goes as a link, and a filesystem mounted in it stays.
 *
 * @throws {TrainerError} `storage`: it is missing or a link, or something in it cannot be deleted; the rest is gone
 */
export async function emptyFolder(dir: string): Promise<void> {
  const path = Buffer.from(dir).toString('latin1')
  let fd: number
  try {
    fd = openSync(dir, FOLDER_FLAGS)
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
  const emptying = new Emptying(fd, path)
  try {
    await emptying.run()
  } finally {
    emptying.goTo(fd)
  }
}

/** What a system call can name the open folder by. */
export function reachOf(fd: number): Bytes {
  return `/proc/self/fd/${fd}`
}

/** Why something is still there, as an operator wants to read it. Any other error than the system's is thrown on. */
export function undeletable(path: Bytes, cause: unknown): TrainerError {
  if (cause instanceof TrainerError) return cause
  if (cause instanceof Error && 'syscall' in cause && 'code' in cause) {
    return new TrainerError(
      'storage',
      `Cannot delete ${escapeBytes(path)}: ${cause.code} at ${cause.syscall}`,
      { cause },
    )
  }
  throw cause
}

/** A folder on the way down: how to know it again on the way up, and its folders that are still to be emptied. */
type Level = { name: Bytes; ino: bigint; folders: Bytes[] }

/** Goes down and up again holding one folder open besides the topmost, so that no depth is too much. */
class Emptying {
  readonly #top: number
  readonly #path: Bytes
  readonly #device: bigint
  readonly #slice = new Slice()
  readonly #levels: Level[] = []
  #current: number
  #failure: unknown

  constructor(top: number, path: Bytes) {
    this.#top = top
    this.#current = top
    this.#path = path
    this.#device = fstatSync(top, { bigint: true }).dev
  }

  async run(): Promise<void> {
    await this.#clear('')
    for (let level = this.#levels.at(-1); level; level = this.#levels.at(-1)) {
      const name = level.folders.pop()
      if (name === undefined) this.#ascend()
      else if (this.#descend(name)) await this.#clear(name)
    }
    if (this.#failure) throw this.#failure
  }

  goTo(fd: number): void {
    if (this.#current !== this.#top) closeSync(this.#current)
    this.#current = fd
  }

  /** Delete what is no folder in the current one, and note its folders. */
  async #clear(name: Bytes): Promise<void> {
    const { ino, mode } = fstatSync(this.#current, { bigint: true })
    const folders: Bytes[] = []
    this.#levels.push({ name, ino, folders })
    // Some caches keep their folders read-only.
    if ((mode & 0o700n) !== 0o700n) this.#attempt('', () => fchmodSync(this.#current, 0o700))
    const listing = new Listing(reachOf(this.#current))
    try {
      for (let child = listing.nextName(); child !== undefined; child = listing.nextName()) {
        const file = child
        this.#attempt(file, reach => {
          if (!unlinkFile(reach)) folders.push(file)
        })
        if (this.#slice.isOver()) await this.#slice.next()
      }
    } finally {
      listing.close()
    }
  }

  /** @returns whether `name`, a folder in the current one, is the current one now */
  #descend(name: Bytes): boolean {
    const above = this.#current
    this.#attempt(name, reach => {
      const fd = openFolder(reach)
      if (fstatSync(fd, { bigint: true }).dev === this.#device) return this.goTo(fd)
      closeSync(fd)
      throw new TrainerError(
        'storage',
        `Cannot delete ${escapeBytes(this.#pathOf(name))}: another filesystem is mounted on it; unmount it`,
      )
    })
    return this.#current !== above
  }

  /** Back to the folder above, to delete the current one. */
  #ascend(): void {
    const { name } = this.#levels.pop()!
    const above = this.#levels.at(-1)
    if (!above) return
    this.goTo(openSync(`${reachOf(this.#current)}/..`, FOLDER_FLAGS))
    if (fstatSync(this.#current, { bigint: true }).ino !== above.ino) {
      throw new TrainerError('storage', `Cannot delete ${escapeBytes(this.#pathOf(name))}: it is being moved`)
    }
    this.#attempt(name, rmdirSync)
  }

  #attempt(name: Bytes, action: (reach: string | Buffer) => void): void {
    try {
      action(native(`${reachOf(this.#current)}/${name}`))
    } catch (cause) {
      if (!isErrno(cause, 'ENOENT')) this.#failure ??= undeletable(this.#pathOf(name), cause)
    }
  }

  #pathOf(name: Bytes): Bytes {
    return [this.#path, ...this.#levels.slice(1).map(level => level.name), name].join('/')
  }
}

/** Open a folder, even one whose mode keeps its owner out. */
function openFolder(reach: string | Buffer): number {
  try {
    return openSync(reach, FOLDER_FLAGS)
  } catch (error) {
    if (!isErrno(error, 'EACCES')) throw error
  }
  const fd = openSync(reach, FOLDER_FLAGS | O_PATH)
  try {
    chmodSync(reachOf(fd), 0o700)
  } finally {
    closeSync(fd)
  }
  return openSync(reach, FOLDER_FLAGS)
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
