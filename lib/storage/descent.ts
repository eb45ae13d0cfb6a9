import { chmodSync, closeSync, fstatSync, openSync } from 'node:fs'
import { isErrno, TrainerError } from '../errors.ts'
import { type Bytes, escapeBytes, native } from '../system/bytes.ts'
import { mountIdOf, O_PATH } from '../system/mount-id.ts'
import { FOLDER_FLAGS } from './walk.ts'

/** The action in each folder on the way. */
export type Stop = {
  /** Called on the way down, in a folder that can be read; @returns the folders in it to go on to */
  visit: (descent: Descent) => Promise<Bytes[]>
  /** Called on the way up, in the folder above, with the name of the one that was left. */
  leave?: (descent: Descent, name: Bytes) => void
  /** Names the action in a message. */
  verb: 'delete' | 'use'
}

/** A folder on the way down: how to know it again on the way up, and its folders that are still to be visited. */
type Level = { name: Bytes; ino: bigint; folders: Bytes[] }

/**
 * A way through a folder and all below it that holds one of them open besides the topmost: no depth is too much, and no
 * link that takes a folder's place leads elsewhere. A folder whose mode keeps its owner out is opened up.
 */
export class Descent {
  readonly #top: number
  readonly #path: Bytes
  readonly #device: bigint
  readonly #levels: Level[] = []
  readonly #stop: Stop
  #current: number
  #failure: unknown

  /** @param path what messages call the open folder `top` */
  constructor(top: number, path: Bytes, stop: Stop) {
    this.#top = top
    this.#current = top
    this.#path = path
    this.#stop = stop
    this.#device = fstatSync(top, { bigint: true }).dev
  }

  /** The open folder that this is in. */
  get current(): number {
    return this.#current
  }

  get top(): number {
    return this.#top
  }

  /** @throws the first failure of all, once everything else is done */
  async run(): Promise<void> {
    try {
      await this.#visit('')
      for (let level = this.#levels.at(-1); level; level = this.#levels.at(-1)) {
        const name = level.folders.pop()
        if (name === undefined) this.#ascend()
        else if (this.#descend(name)) await this.#visit(name)
      }
      if (this.#failure) throw this.#failure
    } finally {
      this.#goTo(this.#top)
    }
  }

  /** Do something to a name in the current folder; its failure is noted, and that it is gone is none. */
  attempt(name: Bytes, action: (reach: string | Buffer) => void): void {
    try {
      action(native(`${reachOf(this.#current)}/${name}`))
    } catch (cause) {
      if (!isErrno(cause, 'ENOENT')) this.#failure ??= storageFault(this.#stop.verb, this.pathOf(name), cause)
    }
  }

  pathOf(name: Bytes): Bytes {
    return [this.#path, ...this.#levels.slice(1).map(level => level.name), name].filter(Boolean).join('/')
  }

  async #visit(name: Bytes): Promise<void> {
    const level: Level = { name, ino: fstatSync(this.#current, { bigint: true }).ino, folders: [] }
    this.#levels.push(level)
    level.folders = await this.#stop.visit(this)
  }

  /** @returns whether `name`, a folder in the current one, is the current one now */
  #descend(name: Bytes): boolean {
    const above = this.#current
    this.attempt(name, reach => {
      const fd = openFolder(reach)
      // A btrfs subvolume has a device of its own, but is gone into like a folder.
      const isWithin =
        fstatSync(fd, { bigint: true }).dev === this.#device || mountIdOf(fd) === mountIdOf(above)
      if (isWithin) return this.#goTo(fd)
      closeSync(fd)
      throw new TrainerError(
        'storage',
        `Cannot ${this.#stop.verb} ${escapeBytes(this.pathOf(name))}: another filesystem is mounted on it; unmount it`,
      )
    })
    return this.#current !== above
  }

  /** Back to the folder above. */
  #ascend(): void {
    const { name } = this.#levels.pop()!
    const above = this.#levels.at(-1)
    if (!above) return
    this.#goTo(openSync(`${reachOf(this.#current)}/..`, FOLDER_FLAGS))
    if (fstatSync(this.#current, { bigint: true }).ino !== above.ino) {
      throw new TrainerError(
        'storage',
        `Cannot ${this.#stop.verb} ${escapeBytes(this.pathOf(name))}: it is being moved`,
      )
    }
    this.#stop.leave?.(this, name)
  }

  #goTo(fd: number): void {
    if (this.#current !== this.#top) closeSync(this.#current)
    this.#current = fd
  }
}

/** Give the path by which a system call names the open folder. */
export function reachOf(fd: number): Bytes {
  return `/proc/self/fd/${fd}`
}

/** Why something is still there, as an operator wants to read it. Any other error than the system's is thrown on. */
export function undeletable(path: Bytes, cause: unknown): TrainerError {
  return storageFault('delete', path, cause)
}

function storageFault(verb: Stop['verb'], path: Bytes, cause: unknown): TrainerError {
  if (cause instanceof TrainerError) return cause
  if (cause instanceof Error && 'syscall' in cause && 'code' in cause) {
    const name = escapeBytes(path)
    return new TrainerError(
      'storage',
      `Cannot ${verb} ${name}: ${cause.code} at ${cause.syscall}${remedyFor(cause, name)}`,
      { cause },
    )
  }
  throw cause
}

function remedyFor(cause: unknown, name: string): string {
  if (isErrno(cause, 'EPERM')) return `; it may be immutable, as root: chattr -R -i -a ${name}`
  if (isErrno(cause, 'EROFS', 'ENOTEMPTY', 'EBUSY'))
    return `; if it is a btrfs subvolume or in one, as root: btrfs subvolume delete ${name}`
  return ''
}

/** Open a folder, even one whose mode keeps its owner out. */
export function openFolder(reach: string | Buffer): number {
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
