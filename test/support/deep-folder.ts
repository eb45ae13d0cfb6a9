import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdirSync, openSync } from 'node:fs'

/**
 * Make folders in one another below `dir`, deeper than any path can name, and call `fill` with a path of the
 * innermost. They are gone at the end of the scope: `rm` can do what `fs.rm` cannot.
 */
export function digFolders(
  dir: string,
  { levels, name }: { levels: number; name: string },
  fill: (innermost: string) => void,
): Disposable {
  let fd = openSync(dir, constants.O_DIRECTORY)
  for (let level = 0; level < levels; level++) {
    mkdirSync(`/proc/self/fd/${fd}/${name}`)
    const below = openSync(`/proc/self/fd/${fd}/${name}`, constants.O_DIRECTORY)
    closeSync(fd)
    fd = below
  }
  fill(`/proc/self/fd/${fd}`)
  closeSync(fd)
  return { [Symbol.dispose]: () => void execFileSync('rm', ['-rf', `${dir}/${name}`]) }
}
