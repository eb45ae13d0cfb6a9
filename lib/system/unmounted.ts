import { readFileSync } from 'node:fs'
import { isWithin } from './bytes.ts'
import { decodeMountField } from './mounts.ts'

/**
 * Find the filesystem that /etc/fstab would mount on a folder or above it, and that is not mounted: what is missing below
 * is then on a disk that is away.
 *
 * @param fstab the file to read instead
 * @returns where it would be mounted; undefined if all is mounted, or there is no such file
 */
export function unmountedAbove(path: string, fstab = '/etc/fstab'): string | undefined {
  const mounted = new Set(mountPoints('/proc/self/mounts'))
  const candidates = mountPoints(fstab).filter(point => isWithin(path, point) && !mounted.has(point))
  return candidates.sort((one, other) => other.length - one.length)[0]
}

/** The second fields of a table of mounts, see fstab(5). */
function mountPoints(table: string): string[] {
  let text: string
  try {
    text = readFileSync(table, 'utf8')
  } catch {
    return []
  }
  return text.split('\n').flatMap(line => {
    const [source = '#', point = ''] = line.trim().split(/\s+/)
    const path = decodeMountField(point)
    return source.startsWith('#') || !path.startsWith('/') || path === '/' ? [] : [path]
  })
}
