/**
 * A consumer that opens every file of a published set over and over, for tests of what it gets to see:
 *
 *   node --import tsx test/support/set-reader.ts JOBDIR FILE…
 *
 * It resolves `current` once for each set. Prints `reading` at first; ends when its standard input does, with its counts as
 * JSON.
 */
import { readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'

const [jobDir, ...files] = process.argv.slice(2) as [string, ...string[]]
const seen = { whole: 0, mixed: 0, gone: 0, versions: 0 }
const versions = new Set<string>()
let isWanted = true
process.stdin.on('end', () => {
  isWanted = false
})
process.stdin.resume()
console.log('reading')

while (isWanted) {
  try {
    const dir = realpathSync(join(jobDir, 'current'))
    const contents = new Set(files.map(name => readFileSync(join(dir, name), 'utf8').slice(0, 10)))
    if (contents.size > 1) seen.mixed++
    else {
      seen.whole++
      for (const version of contents) versions.add(version)
    }
  } catch {
    seen.gone++
  }
  await setImmediate()
}
console.log(JSON.stringify({ ...seen, versions: versions.size }))
