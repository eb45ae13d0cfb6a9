import { closeSync, constants, openSync } from 'node:fs'
import { readProc } from './processes.ts'

/** Names a folder without a right to read it; see open(2). Node.js has no constant for it. */
export const O_PATH = 0o10000000

/** Tell by which mount an open folder was reached; a btrfs subvolume has the mount of the folder that it is in. */
export function mountIdOf(fd: number): string | undefined {
  return /^mnt_id:\s*(\d+)/m.exec(readProc(`self/fdinfo/${fd}`) ?? '')?.[1]
}

/**
 * Do two folders belong to one mount? If so, and stat(2) gives them different devices, one is a btrfs subvolume.
 *
 * @throws the system's error if one is no folder
 */
export function areOnOneMount(one: string | Buffer, other: string | Buffer): boolean {
  const [id, otherId] = [one, other].map(path => {
    const fd = openSync(path, constants.O_DIRECTORY | O_PATH)
    try {
      return mountIdOf(fd)
    } finally {
      closeSync(fd)
    }
  })
  return id !== undefined && id === otherId
}
