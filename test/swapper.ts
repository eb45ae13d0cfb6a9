/**
 * Swaps a folder for a link to another and back, as fast as it can: node swapper.ts FOLDER OUTSIDE.
 * The link stands in the folder's place about half of the time.
 */
import { renameSync, symlinkSync, unlinkSync } from 'node:fs'

const [folder, outside] = process.argv.slice(2) as [string, string]
process.stdout.write('swapping\n')
for (;;) {
  renameSync(folder, `${folder}.aside`)
  symlinkSync(outside, folder)
  unlinkSync(folder)
  renameSync(`${folder}.aside`, folder)
}
