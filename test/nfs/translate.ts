/**
 * Put a copy of the project that is translated to JavaScript, which starts much sooner, into a new folder:
 *
 *   node --import tsx test/nfs/translate.ts FOLDER
 */
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { translateProject } from '../support/translate.ts'

const folder = process.argv[2]!
await using copy = await translateProject()
cpSync(copy.dir, folder, { recursive: true, verbatimSymlinks: true })
// It names its packages by where they were.
for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
  if (!name.endsWith('.js') || name.startsWith('node_modules')) continue
  const file = join(folder, name)
  writeFileSync(file, readFileSync(file, 'utf8').replaceAll(copy.dir, folder))
}
