import { statfsSync } from 'node:fs'
import { messageOf } from '../errors.ts'
import type { RunProgram } from '../system/programs.ts'
import { BTRFS, XFS } from './capacity.ts'

/** A command for a folder and all folders below it. */
const inFolders = (dir: string, ...command: string[]) => [
  'find',
  dir,
  '-xdev',
  '-type',
  'd',
  '-exec',
  ...command,
  '{}',
  '+',
]

type Remedy = { growth: string; commandsFor: (dir: string, blockBytes: number) => string[][] }

/** By filesystem: how files come to take much more than what is in them, and what ends that for new ones. */
const remedies = new Map<number, Remedy>([
  [
    XFS,
    {
      growth:
        'without xfs_io (package xfsprogs) a file that is appended to takes up to twice its size until it is closed, and the ' +
        'quota counts that',
      // A hint for the size of extents takes the place of what XFS guesses that a file will need; see xfs_io(8).
      commandsFor: (dir, blockBytes) => [['xfs_io', '-r', '-c', `extsize -D ${blockBytes}`, dir]],
    },
  ],
  [
    BTRFS,
    {
      growth:
        'without chattr (package e2fsprogs) a file that is overwritten in place can take many times its size, and the quota does ' +
        'not count that',
      // Blocks are overwritten where they are, not written elsewhere and the old ones kept; see btrfs(5). That cannot be had
      // in a folder whose files are to be compressed.
      commandsFor: dir => [inFolders(dir, 'chattr', '-c', '--'), inFolders(dir, 'chattr', '+C', '--')],
    },
  ],
])

/**
 * Let new files in a folder and in all folders below it, also in those that are made later, take on the disk what is in them.
 * Files that are there already stay as they are.
 *
 * @param dir the caller's own
 * @returns how files may take more than what is in them, and why that could not be ended; undefined if all is well
 */
export async function steadyGrowth(dir: string, run: RunProgram): Promise<string | undefined> {
  const { type, bsize } = statfsSync(dir)
  const remedy = remedies.get(type)
  if (!remedy) return undefined
  try {
    for (const command of remedy.commandsFor(dir, bsize)) await run(command)
    return undefined
  } catch (error) {
    return `${remedy.growth}: ${messageOf(error)}`
  }
}
