import { join, posix } from 'node:path'
import { CACHE, HOME, TMP, WORK } from '../layout.ts'
import { reasonOf, statPlain, UnusableFile } from '../system/plain-file.ts'
import { inspectOnnx } from './onnx.ts'

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
const unpublishedFolders = [WORK, TMP, CACHE, HOME]
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
 * Judge one file. A model is a regular file that is not empty; an ONNX model is also whole in structure, with its
 * external data beside or below it.
 *
 * @param folder the job's folder or its `work/`; external data must be in it
 * @throws {UnusableFile} with the reason why the file is not a model
 */
export async function judgeModel(folder: string, name: string): Promise<Model> {
  if (!isPublishable(name)) throw new UnusableFile('has a name that cannot be published')
  const { size } = statPlain(folder, name)
  if (size === 0n) throw new UnusableFile('is empty')
  const path = join(folder, name)
  return { path, name, bytes: Number(size), references: isOnnx(name) ? await referencesOf(folder, name) : [] }
}

async function referencesOf(folder: string, name: string): Promise<string[]> {
  const { externalData } = await inspectOnnx(join(folder, name))
  return Array.from(externalData, ([location, neededBytes]) => {
    const reference = posix.normalize(posix.join(posix.dirname(name), location))
    const outside = posix.isAbsolute(location) || location.split('/').includes('..')
    if (outside || !isPublishable(reference)) {
      throw new UnusableFile(`keeps data in ${location}, which is not beside or below it`)
    }
    const bytes = referenceBytes(folder, reference, location)
    if (bytes < neededBytes) {
      throw new UnusableFile(`needs ${neededBytes} bytes of ${location}, which has ${bytes}`)
    }
    return join(folder, reference)
  })
}

function referenceBytes(folder: string, reference: string, location: string): number {
  try {
    return Number(statPlain(folder, reference).size)
  } catch (error) {
    throw new UnusableFile(`needs ${location}, which ${reasonOf(error)}`, { cause: error })
  }
}
