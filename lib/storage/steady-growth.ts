import { statfsSync } from 'node:fs'
import { messageOf } from '../errors.ts'
import type { RunProgram } from '../system/programs.ts'
import { BTRFS, XFS } from './capacity.ts'

/** Filesystems whose files can take much more than what is in them, and the command that ends it for new files in folders. */
const commands = new Map<number, { more: string; commandFor: (blockBytes: number) => string[] }>([
  [
    XFS,
    {
      more: 'a file that is appended to takes up to twice its size until it is closed',
      // A hint for the size of extents takes the place of what XFS guesses that a file will need; see xfs_io(8).
      commandFor: blockBytes => ['xfs_io', '-r', '-c', `extsize ${blockBytes}`],
    },
  ],
  [
    BTRFS,
    {
      more: 'a file that is overwritten in place can take many times its size',
      // Blocks are overwritten where they are, not written elsewhere and the old ones kept; see btrfs(5).
      commandFor: () => ['chattr', '+C', '--'],
    },
  ],
])

/**
 * Let new files in the folders, and in folders that are made in them, take on the disk what is in them.
 *
 * @param dirs on one filesystem, the caller's own
 * @returns what files may take more than is charged, and why that could not be ended; undefined if all is well
 */
export async function steadyGrowth(
  dirs: [string, ...string[]],
  run: RunProgram,
): Promise<string | undefined> {
  const { type, bsize } = statfsSync(dirs[0])
  const known = commands.get(type)
  if (!known) return undefined
  try {
    await run([...known.commandFor(bsize), ...dirs])
    return undefined
  } catch (error) {
    return `${known.more}, and the quota counts that: ${messageOf(error)}`
  }
}
