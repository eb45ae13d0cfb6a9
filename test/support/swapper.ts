/**
 * Keeps swapping a folder for a link to another and back: node swapper.ts FOLDER OUTSIDE. Each stands for up to half a
 * millisecond: about as long as a few files take to be listed or deleted.
 */
import { renameSync, symlinkSync, unlinkSync } from 'node:fs'

const [folder, outside] = process.argv.slice(2) as [string, string]
process.stdout.write('swapping\n')
for (;;) {
  renameSync(folder, `${folder}.aside`)
  symlinkSync(outside, folder)
  linger()
  unlinkSync(folder)
  renameSync(`${folder}.aside`, folder)
  linger()
}

function linger(): void {
  const endMs = performance.now() + Math.random() / 2
  while (performance.now() < endMs);
}
