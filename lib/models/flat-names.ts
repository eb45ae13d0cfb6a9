import { isOnnx } from './judge.ts'
import { MANIFEST, type Manifest } from './manifest.ts'

/** The files of a generation that are also in the job's folder itself, for readers that know those names. */
export type FlatNames = {
  /** Files, each a hard link: external data before models, the manifest last. */
  files: string[]
  /** A model that is a folder, as a link to it in the current generation. */
  folder: string | undefined
  /** Files that have no flat name: together they are a set, and a reader that opens one after another gets a mixture. */
  hidden: string[]
}

/**
 * Tell which files of a generation have flat names.
 *
 * An ONNX model can be loaded by itself, and its external data has a name that no other content had. Of other files nobody
 * knows which belong together: one alone has a flat name, and several in one folder have that folder's, which a reader
 * resolves once. Several beside each other have none.
 */
export function flatNamesOf({ files, metadata }: Manifest): FlatNames {
  const names = Object.keys(files)
  const models = metadata.models.length ? metadata.models : names
  const opaque = new Set(models.filter(name => !isOnnx(name)))
  if (opaque.size < 2) return { files: [...ordered(names, models), MANIFEST], folder: undefined, hidden: [] }
  const tops = new Set(Array.from(opaque, name => name.split('/')[0]!))
  const [top] = tops
  const isFolder = tops.size === 1 && [...opaque].every(name => name.includes('/'))
  const isIn = (name: string) => isFolder && name.startsWith(`${top}/`)
  const flat = names.filter(name => !opaque.has(name) && !isIn(name))
  return {
    files: [...ordered(flat, models), MANIFEST],
    folder: isFolder ? top : undefined,
    hidden: isFolder ? [] : [...opaque],
  }
}

function ordered(names: string[], models: string[]): string[] {
  const loaded = new Set(models)
  return [...names.filter(name => !loaded.has(name)), ...names.filter(name => loaded.has(name))]
}
