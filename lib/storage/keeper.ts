import { lstatSync, realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isErrno } from '../errors.ts'
import { type Bytes, native, PATH_MAX } from '../system/bytes.ts'
import { inodeId } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import type { Entry } from './entry.ts'

/** Tells of an entry whether it is kept: it, under whatever name, or a folder that it is in or that is above it. */
export class Keeper {
  readonly #paths = new Set<Bytes>()
  readonly #folders = new Set<Bytes>()
  readonly #ids = new Set<string>()
  /** The length of the longest of the paths: what is kept of a longer one is above it. */
  #longest = 0

  private constructor() {}

  /** Learn what is kept: thousands of files are looked at one by one, and everything else has its turn. */
  static async of(keep: Iterable<string | Buffer>, signal?: AbortSignal): Promise<Keeper> {
    const keeper = new Keeper()
    const slice = new Slice()
    const folders = new Map<Bytes, Bytes | undefined>()
    for (const file of keep) {
      await slice.giveWay(signal)
      keeper.#add(canonical(Buffer.from(file as string).toString('latin1'), folders))
    }
    return keeper
  }

  #add(path: Bytes): void {
    this.#paths.add(path)
    this.#longest = Math.max(this.#longest, path.length)
    for (let folder = dirname(path); !this.#folders.has(folder); folder = dirname(folder))
      this.#folders.add(folder)
    const stats = reachable(() => lstatSync(native(path), { bigint: true }))
    if (stats) this.#ids.add(inodeId(stats))
  }

  keeps(entry: Entry): boolean {
    if (!this.#paths.size) return false
    if (this.keepsInode(entry)) return true
    // The label begins as the path does.
    return this.keepsPath(entry.isDeep && this.#longest < PATH_MAX / 2 ? entry.label : entry.pathBytes)
  }

  keepsPath(whole: Bytes): boolean {
    let path = whole
    if (path.length > this.#longest) path = path.slice(0, Math.max(0, path.lastIndexOf('/', this.#longest)))
    else if (this.#folders.has(path)) return true
    while (path.length > 1 && !this.#paths.has(path)) path = dirname(path)
    return path.length > 1
  }

  keepsInode(inode: Record<'dev' | 'ino', bigint>): boolean {
    return this.#ids.size > 0 && this.#ids.has(inodeId(inode))
  }
}

/**
 * Spelled without links above it, as measured paths are; a path that cannot be reached stays as it is.
 *
 * @param folders those that were asked for before, and where they are
 */
function canonical(path: Bytes, folders: Map<Bytes, Bytes | undefined>): Bytes {
  const above = dirname(path)
  if (!folders.has(above))
    folders.set(
      above,
      reachable(() => realpathSync.native(native(above), 'latin1')),
    )
  const folder = folders.get(above)
  return folder === undefined ? path : join(folder, basename(path))
}

/** Call `look`; undefined for a path that leads nowhere or, as a measured path may, on beyond PATH_MAX. */
function reachable<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ENAMETOOLONG')) return undefined
    throw error
  }
}
