import { readdirSync, readlinkSync } from 'node:fs'

/** How many of this process's descriptors are open on something below a folder; others come and go as they like. */
export function descriptorsBelow(dir: string): number {
  return readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(dir)
    } catch {
      return false // the one that listed them
    }
  }).length
}
