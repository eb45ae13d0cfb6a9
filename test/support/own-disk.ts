import { chmodSync, mkdirSync, statfsSync, truncateSync, writeFileSync } from 'node:fs'
import type { Rig } from './rig.ts'
import { until } from './sandbox.ts'
import { must } from './volume-rig.ts'

export type OwnDisk = AsyncDisposable & {
  /** Watch from outside what is used of it: gives the most bytes above what was used before, and for how long `limit` was passed. */
  watch: (limitBytes: number) => () => { peakBytes: number; longestMs: number }
  account: () => { freeInodes: number; freeBytes: number }
}

/**
 * A disk whose only folder is the rig's models folder: nobody else writes to it, and what really lies on it can be told.
 *
 * @example await using disk = ownDisk(rig, 'ext4', 600, '-N', '3000')
 */
export function ownDisk(
  rig: Rig,
  kind: 'ext4' | 'xfs' | 'btrfs',
  sizeMb: number,
  ...options: string[]
): OwnDisk {
  const image = rig.path('disk.img')
  const at = rig.path('disk')
  writeFileSync(image, '')
  truncateSync(image, sizeMb * 2 ** 20)
  must(`mkfs.${kind}`, '-q', ...options, image)
  mkdirSync(at)
  must('mount', '-o', 'loop', image, at)
  const used = () => {
    const { blocks, bfree, bsize } = statfsSync(at)
    return (blocks - bfree) * bsize
  }
  mkdirSync(rig.modelsDir)
  mkdirSync(`${at}/models`)
  must('mount', '--bind', `${at}/models`, rig.modelsDir)
  chmodSync(rig.dir, 0o755)
  return {
    watch(limitBytes) {
      const before = used()
      let peakBytes = 0
      let longestMs = 0
      let sinceMs: number | undefined
      const timer = setInterval(() => {
        const bytes = used() - before
        peakBytes = Math.max(peakBytes, bytes)
        sinceMs = bytes > limitBytes ? (sinceMs ?? performance.now()) : undefined
        if (sinceMs !== undefined) longestMs = Math.max(longestMs, performance.now() - sinceMs)
      }, 5)
      return () => {
        clearInterval(timer)
        return { peakBytes, longestMs }
      }
    },
    account() {
      const { bavail, bsize, ffree } = statfsSync(at)
      return { freeInodes: ffree, freeBytes: bavail * bsize }
    },
    async [Symbol.asyncDispose]() {
      for (const point of [rig.modelsDir, at]) {
        await until(`${point} is unmounted`, () => {
          try {
            must('umount', point)
            return true
          } catch {
            return false
          }
        })
      }
    },
  }
}

/** The rig's models folder as a filesystem in memory of `megabytes` of its own, unmounted at the end. */
export function mountSmallDisk(rig: Rig, megabytes: number): Disposable {
  mkdirSync(rig.modelsDir)
  must('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', rig.modelsDir)
  return { [Symbol.dispose]: () => void must('umount', '-l', rig.modelsDir) }
}
