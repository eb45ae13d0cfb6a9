import { join, posix } from 'node:path'
import { reasonOf, statPlain, UnusableFile } from '../system/plain-file.ts'
import { inspectOnnx } from './onnx.ts'

/** A file that can be used as a model. */
export type Model = {
  /** Absolute. */
  path: string
  /** Below the folder it was found in; '/'-separated. */
  name: string
  bytes: number
  /** External tensor data that the model needs, absolute. */
  references: string[]
}

/** Folders in a job's folder that are emptied or hold what is not published, and this program's own files. */
const unpublishedFolders = ['work', 'tmp']
const ownFiles = ['manifest.json', 'manifest.json.next', 'manifest.sig', 'metadata.json']

/** Can a file of this name, relative to a job's folder, be published there: a plain way down, to nobody's place? */
export function isPublishable(name: string): boolean {
  const parts = name.split('/')
  if (name.includes('\0') || parts.some(part => ['', '.', '..'].includes(part))) return false
  return !unpublishedFolders.includes(parts[0]!) && !ownFiles.includes(parts.at(-1)!)
}

/** ONNX models are looked into; a model of any other kind is opaque, and never parsed. */
export function isOnnx(name: string): boolean {
  return name.toLowerCase().endsWith('.onnx')
}

/**
 * Judge one file: a model is a regular file that is not empty, and for ONNX whole in its structure, with its
 * external data beside or below it.
 *
 * @param folder the job's folder, or its `work/`: where external data may be
 * @throws {UnusableFile} with the reason why it is not a model
 */
export function judgeModel(folder: string, name: string): Model {
  if (!isPublishable(name)) throw new UnusableFile('has a name that is not published')
  const { size } = statPlain(folder, name)
  if (size === 0n) throw new UnusableFile('is empty')
  const path = join(folder, name)
  return { path, name, bytes: Number(size), references: isOnnx(name) ? referencesOf(folder, name) : [] }
}

function referencesOf(folder: string, name: string): string[] {
  const { externalData } = inspectOnnx(join(folder, name))
  return Array.from(externalData, ([location, neededBytes]) => {
    const reference = posix.normalize(posix.join(posix.dirname(name), location))
    const outside = posix.isAbsolute(location) || location.split('/').includes('..')
    if (outside || !isPublishable(reference)) {
      throw new UnusableFile(`keeps data in ${location}, which is not a place beside or below it`)
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
