/**
 * A consumer that loads `core.onnx` and its external data over and over, for tests of what it gets to see:
 *
 *   node --import tsx test/support/model-reader.ts JOBDIR
 *
 * Prints `reading` at first; ends when its standard input does, with its counts as JSON.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { isWhole } from './versions.ts'

const jobDir = process.argv[2]!
const seen = { whole: 0, torn: 0, versions: 0 }
const versions = new Set<number>()
let isWanted = true
process.stdin.on('end', () => {
  isWanted = false
})
process.stdin.resume()
console.log('reading')

while (isWanted) {
  const model = readFileSync(join(jobDir, 'core.onnx'))
  const version = isWhole(model, name => readFileSync(join(jobDir, name)))
  if (version === undefined) seen.torn++
  else {
    seen.whole++
    versions.add(version)
  }
  await setImmediate()
}
console.log(JSON.stringify({ ...seen, versions: versions.size }))
