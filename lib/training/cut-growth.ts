import type { BigIntStats } from 'node:fs'
import { foldersIn } from '../settings/layout.ts'
import { excessTest } from '../storage/excess.ts'
import { findRoot, findWork, type MeasureOptions } from '../storage/measure.ts'
import { type Bytes, isWithin, native } from '../system/bytes.ts'
import { cutHoles, emptyAndClose, openToCut } from '../system/cut-short.ts'
import {
  DELETED,
  eachDescriptor,
  eachMapping,
  firstLiveThread,
  statOrNothing,
} from '../system/descriptors.ts'
import { devicesOf } from './held-files.ts'
import { temporaryFolder } from './sandbox.ts'

/** Open at a time; more are found by the next look. */
const MOST_AT_ONCE = 256

/** A shared mapping that is written to, as a line of /proc/PID/maps. */
const isWritten = (line: string) => /^\S+ .w.s /.test(line)

export type Dying = {
  /** The job's folder. */
  dir: string
  rules: MeasureOptions
  isSandboxed: boolean
  processes: () => number[]
  /** When it was killed: checkpoints that were written to since then are cut too. The others may be whole. */
  sinceNs: bigint
}

/**
 * Makes what empties the files of a job that dying processes can still fill or keep: those that they have mapped for writing, and
 * deleted ones that they have open. By a call that no signal ends, such as a read from memory into a mapped file without blocks, the
 * kernel fills one by gigabytes a second; at the end of the file the call ends as well. Root reaches all of them. For an ordinary user
 * a deleted one that is mapped and not open is out of reach.
 *
 * @returns looks once, and tells whether files with names were among them: they are still there, empty
 */
export async function growthCutter({
  dir,
  rules,
  isSandboxed,
  processes,
  sinceNs,
}: Dying): Promise<(signal: AbortSignal) => Promise<boolean>> {
  const { tmpDir } = foldersIn(findRoot(dir))
  const work = findWork(dir)
  const isExcess = await excessTest(dir, rules)

  /**
   * @returns the path by which this process reaches what one of the training has seen, if it is in `work/`: a reader may still use
   * what was published once
   */
  const ownPath = (seen: Bytes) => {
    const path = isSandboxed ? seen.replace(temporaryFolder, tmpDir) : seen
    return isWithin(path, work) ? path : undefined
  }

  return async signal => {
    const devices = devicesOf(dir)
    const pids = processes()
    const fds = new Map<number, number>()
    let hasNamed = false
    const enough = new AbortController()
    const over = AbortSignal.any([signal, enough.signal])
    const isMeant = ({ ino, dev, size }: BigIntStats, inode: number) =>
      ino === BigInt(inode) && devices.has(Number(dev)) && size > 0n
    const take = (inode: number, fd: number | undefined) => {
      if (fd === undefined) return false
      fds.set(inode, fd)
      if (fds.size === MOST_AT_ONCE) enough.abort()
      return true
    }
    const openDeleted = (inode: number, link: string) =>
      openToCut(link, stats => isMeant(stats, inode) && stats.nlink === 0n, true)
    const openNamed = (inode: number, path: Bytes) =>
      openToCut(native(path), stats => {
        const file = { ...stats, isGrowing: stats.mtimeNs >= sinceNs }
        return isMeant(stats, inode) && stats.nlink === 1n && isExcess(path, file)
      })
    const look = async () => {
      const tried = new Set<number>()
      await eachMapping(pids, isWritten, { aside: true, signal: over }, async mapping => {
        const { link, inode, isDeleted } = mapping
        const path = ownPath(mapping.path)
        if (path === undefined || tried.has(inode)) return
        tried.add(inode)
        if (isDeleted && take(inode, openDeleted(inode, link))) return
        // A name may end with the same word.
        if (take(inode, openNamed(inode, isDeleted ? `${path}${DELETED}` : path))) hasNamed = true
      })
      await eachDescriptor(pids, firstLiveThread, over, (link, target) => {
        if (!target.endsWith(DELETED) || over.aborted) return
        if (!ownPath(Buffer.from(target).toString('latin1'))) return
        const inode = statOrNothing(link)?.ino
        if (inode !== undefined && !fds.has(inode)) take(inode, openDeleted(inode, link))
      })
    }
    try {
      await look()
    } catch (reason) {
      if (!over.aborted) throw reason
    } finally {
      // None of them grows while another one goes.
      await Promise.all([...fds.values()].map(cutHoles))
      for (const fd of fds.values()) await emptyAndClose(fd)
    }
    return hasNamed
  }
}
