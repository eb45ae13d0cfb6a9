import { type BigIntStats, lstatSync, realpathSync, type Stats } from 'node:fs'
import { messageOf, TrainerError } from '../errors.ts'
import type { Bytes } from '../system/bytes.ts'
import { inodeId } from '../system/plain-file.ts'
import { freeSpace } from './capacity.ts'
import { Entry, type Inode, listOldest } from './prunable.ts'
import { compileRules, PRUNABLE_ENDING } from './rules.ts'
import { walk } from './walk.ts'

export type MeasureOptions = {
  /** Globs of what may be pruned besides `*.checkpoint` and `*.tmp` files; relative to the folder or its `work/`. */
  prune?: string[]
  /** Paths that are never prunable, such as published models with their external data and manifest. */
  keep?: Iterable<string | Buffer>
}

/**
 * What a folder holds: its charged bytes; all in it that the rules name, kept or not, in any order, also what goes with a
 * folder; and of that what may be pruned, oldest first.
 */
export type Measurement = { usedBytes: number; named: Entry[]; prunable: Entry[] }

/**
 * Measure a folder.
 *
 * Charged are the folder and everything in it, each inode once: of a file its size or its blocks, whichever is more,
 * so that a sparse file counts in full; of all else the blocks. Links are not followed. What vanishes meanwhile is
 * not counted; in a folder that is swapped for a link meanwhile, other files may be.
 *
 * @throws {TrainerError} `storage`: the folder or one in it is missing, cannot be read, or has another filesystem
 * mounted on it; it is never taken for empty
 */
export async function measure(
  dir: string,
  { prune = [], keep = [] }: MeasureOptions = {},
): Promise<Measurement> {
  const root = findRoot(dir)
  const ruleOf = await compileRules(root, prune)
  const inodes = new Map<string, Inode>()
  const found: Entry[] = []
  let usedBytes = 0

  const addBytes = (bytes: number) => {
    usedBytes += bytes
  }
  const rootStats = await walk<Entry | undefined>(root, undefined, {
    ...(!prune.length && { ordinary: { except: PRUNABLE_ENDING, add: addBytes } }),
    isExact: ({ path, data: owner }, name) => owner !== undefined || ruleOf(path, name, 'any') !== undefined,
    visit({ path, data: owner }, name, stats) {
      const bytes = chargeOf(stats)
      if (!isExact(stats)) {
        usedBytes += bytes
        return undefined
      }
      const isFolder = stats.isDirectory()
      const inode = stats.nlink > 1n && !isFolder ? countName(inodes, stats, bytes) : undefined
      if (!inode || inode.names === 1) usedBytes += bytes
      for (let holder = owner; holder; holder = holder.owner) {
        holder.add(bytes, inode)
        if (stats.mtimeNs > holder.mtimeNs) holder.mtimeNs = stats.mtimeNs
      }
      const rule = isFolder || stats.isFile() ? ruleOf(path, name, isFolder ? 'folder' : 'file') : undefined
      if (rule === undefined) return owner
      const entry = new Entry(path, name, stats, rule, owner)
      entry.add(bytes, inode)
      found.push(entry)
      return isFolder ? entry : owner
    },
  })
  usedBytes += chargeOf(rootStats)
  return { usedBytes, named: found, prunable: listOldest(found, keep) }
}

/**
 * The real path of a folder.
 *
 * @throws {TrainerError} `storage`: it is missing, no folder, or a link, which may lead to anything
 */
export function findRoot(dir: string): Bytes {
  let isFolder: boolean
  try {
    isFolder = lstatSync(dir).isDirectory()
    if (isFolder) return realpathSync.native(dir, 'latin1')
  } catch (cause) {
    throw new TrainerError('storage', `Cannot measure ${dir}: ${messageOf(cause)}`, { cause })
  }
  throw new TrainerError(
    'storage',
    `Cannot measure ${dir}: it is not a folder, or a link to one; name the folder itself`,
  )
}

function isExact(stats: Stats | BigIntStats): stats is BigIntStats {
  return typeof stats.ino === 'bigint'
}

/** What one inode is charged with, in bytes. */
export function chargeOf(stats: Stats | BigIntStats): number {
  const blockBytes = Number(stats.blocks) * 512
  return stats.isFile() ? Math.max(Number(stats.size), blockBytes) : blockBytes
}

function countName(inodes: Map<string, Inode>, stats: BigIntStats, bytes: number): Inode {
  const id = inodeId(stats)
  const inode = inodes.get(id) ?? { id, bytes, names: 0, pruned: 0 }
  inodes.set(id, inode)
  inode.names++
  return inode
}

/** One look at a job's folder; figures in bytes, what may be pruned oldest first. */
export type Look = Omit<Measurement, 'named'> & { freeBytes: number }

/** Walk the folder. */
export async function lookAt(dir: string, options: MeasureOptions = {}): Promise<Look> {
  return { ...(await measure(dir, options)), freeBytes: freeSpace(dir) }
}
