import { join, posix } from 'node:path'
import { ASIDE, CACHE, HOME, TMP, WORK } from '../layout.ts'
import { type Recognise, reasonOf, statPlain, UnusableFile } from '../system/plain-file.ts'
import { inspectOnnx, type OnnxStructure } from './onnx.ts'

/** A file that can be used as a model. */
export type Model = {
  /** Absolute. */
  path: string
  /** Path below the folder it was found in, '/'-separated. */
  name: string
  bytes: number
  /** Absolute paths of the external tensor data that the model needs. */
  references: string[]
}

/** Folders of a job, or of its output folder, that hold nothing of a training's result. */
const unpublishedFolders = [WORK, ASIDE, TMP, CACHE, HOME]
/** Files that this program writes itself. */
const ownFiles = ['manifest.json', 'manifest.json.next', 'manifest.sig', 'metadata.json']

/** Can a file be published under this name in a job's folder? No part may climb out or be a name of our own. */
export function isPublishable(name: string): boolean {
  const parts = name.split('/')
  if (name.includes('\0') || parts.some(part => ['', '.', '..'].includes(part))) return false
  return !unpublishedFolders.includes(parts[0]!) && !ownFiles.includes(parts.at(-1)!)
}

/** Is this the name of an ONNX model? Only those are parsed; a model of any other kind is opaque. */
export function isOnnx(name: string): boolean {
  return name.toLowerCase().endsWith('.onnx')
}

/**
 * Judge one file. A model is a regular file that is not empty; an ONNX model can also be loaded, as far as its structure
 * tells, with its external data beside or below it.
 *
 * @param folder the job's folder, its `work/` or one of its generations; external data must be in it
 * @param recognise counts the names of a file that are known, where it may have several
 * @returns the model, or a promise of it if its structure is large
 * @throws {UnusableFile} with the reason why the file is not a model
 */
export function judgeModel(folder: string, name: string, recognise?: Recognise): Model | Promise<Model> {
  if (!isPublishable(name)) throw new UnusableFile('has a name that cannot be published')
  const { size } = statPlain(folder, name, recognise)
  if (size === 0n) throw new UnusableFile('is empty')
  const path = join(folder, name)
  const model = { path, name, bytes: Number(size), references: [] }
  if (!isOnnx(name)) return model
  const complete = ({ externalData }: OnnxStructure): Model => {
    const references = Array.from(externalData, it => referenceOf(folder, name, it, recognise))
    return { ...model, references }
  }
  const structure = inspectOnnx(path, recognise && ((_, stats) => recognise(name, stats)))
  return structure instanceof Promise ? structure.then(complete) : complete(structure)
}

function referenceOf(
  folder: string,
  name: string,
  [location, neededBytes]: [location: string, neededBytes: number],
  recognise: Recognise | undefined,
): string {
  const reference = posix.normalize(posix.join(posix.dirname(name), location))
  const outside = posix.isAbsolute(location) || location.split('/').includes('..')
  if (outside || !isPublishable(reference)) {
    throw new UnusableFile(`keeps data in ${location}, which is not beside or below it`)
  }
  const bytes = referenceBytes(folder, reference, location, recognise)
  if (bytes < neededBytes) {
    throw new UnusableFile(`needs ${neededBytes} bytes of ${location}, which has ${bytes}`)
  }
  return join(folder, reference)
}

function referenceBytes(
  folder: string,
  reference: string,
  location: string,
  recognise: Recognise | undefined,
): number {
  try {
    return Number(statPlain(folder, reference, recognise).size)
  } catch (error) {
    throw new UnusableFile(`needs ${location}, which ${reasonOf(error)}`, { cause: error })
  }
}
