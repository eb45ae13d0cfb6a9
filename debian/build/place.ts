import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'

/** Where a file of the project would stand below the bundle's folder: its `import.meta`. It is part of the bundle. */
export function placeOf(name: string): { url: string; dirname: string; filename: string } {
  const filename = join(folder, name.replace(/\.ts$/, '.js'))
  return { url: pathToFileURL(filename).href, dirname: dirname(filename), filename }
}

/** The bundle's folder: this piece is in there, or in a folder of it. */
const folder = existsSync(join(import.meta.dirname, 'package.json'))
  ? import.meta.dirname
  : dirname(import.meta.dirname)
