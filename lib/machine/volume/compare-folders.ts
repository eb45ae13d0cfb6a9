import {
  type BigIntStats,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  type Stats,
} from 'node:fs'
import { walk } from '../../storage/walk.ts'
import { type Bytes, escapeBytes, native } from '../../system/bytes.ts'
import { MIB } from '../../text.ts'

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY, S_IFMT } = constants

/**
 * Find the first file below `from` that `to` lacks or has with another kind or content. Files that only `to` has, empty
 * folders, owners and times make no difference.
 *
 * @returns its path below `from`, escaped; undefined if there is none
 * @throws the system's error if either cannot be read
 */
export async function findDifference(from: string, to: string): Promise<string | undefined> {
  const fromRoot = Buffer.from(from).toString('latin1')
  const toRoot = Buffer.from(to).toString('latin1')
  let difference: Bytes | undefined
  await walk<undefined>(fromRoot, undefined, {
    isExact: () => false,
    visit({ path, reach }, name, stats) {
      const below = `${path.slice(fromRoot.length)}/${name}`
      if (difference === undefined && !isInBoth(native(`${reach}/${name}`), native(toRoot + below), stats)) {
        difference = below.slice(1)
      }
      return undefined
    },
  })
  return difference && escapeBytes(difference)
}

function isInBoth(one: string | Buffer, other: string | Buffer, stats: Stats | BigIntStats): boolean {
  const found = lstatSync(other, { throwIfNoEntry: false })
  if (!found) return stats.isDirectory()
  if ((Number(stats.mode) & S_IFMT) !== (found.mode & S_IFMT)) return false
  if (stats.isSymbolicLink()) return readlinkSync(one, 'buffer').equals(readlinkSync(other, 'buffer'))
  return !stats.isFile() || (Number(stats.size) === found.size && haveSameContent(one, other))
}

function haveSameContent(one: string | Buffer, other: string | Buffer): boolean {
  const fds: number[] = []
  try {
    for (const path of [one, other]) fds.push(openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK))
    const pieces = fds.map(() => Buffer.allocUnsafe(MIB))
    for (;;) {
      const [here, there] = fds.map((fd, index) => pieces[index]!.subarray(0, readSync(fd, pieces[index]!)))
      if (!here!.equals(there!)) return false
      if (!here!.length) return true
    }
  } finally {
    for (const fd of fds) closeSync(fd)
  }
}
