/**
 * What `node --import tsx` loads: tsx itself, with a cache that nobody else can write to.
 *
 * tsx keeps translated files in a folder of a predictable name below the temporary folder, and runs what it finds there,
 * whoever put it there: for root that would be anybody's code. Its own switches are variables that a boot line would have
 * to set, so this module, a package of the name `tsx`, stands in its place and sets them.
 */
import { lstatSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'

const { TMPDIR, TSX_DISABLE_CACHE } = process.env
const cache = ownCache()
if (cache) process.env.TMPDIR = cache
else process.env.TSX_DISABLE_CACHE = '1'
await import('tsx')
// It has looked at them, also in the thread that it starts. Nothing else is meant to see them.
restore('TMPDIR', TMPDIR)
restore('TSX_DISABLE_CACHE', TSX_DISABLE_CACHE)

/** A folder for the cache beside the program, if the program is ours: whoever could write there could change that too. */
function ownCache() {
  try {
    const packages = join(import.meta.dirname, '../../../node_modules')
    const user = process.geteuid()
    if (lstatSync(packages).uid !== user) return undefined
    const dir = join(packages, '.cache')
    const used = join(dir, `tsx-${user}`) // the name is tsx's own
    mkdirSync(used, { recursive: true, mode: 0o700 })
    return [dir, used].every(it => isOnlyOurs(lstatSync(it), user)) ? dir : undefined
  } catch {
    return undefined // read-only, or full: it starts without
  }
}

function isOnlyOurs(stats, user) {
  return stats.isDirectory() && stats.uid === user && !(stats.mode & 0o022)
}

function restore(name, value) {
  if (value === undefined) delete process.env[name]
  else process.env[name] = value
}
