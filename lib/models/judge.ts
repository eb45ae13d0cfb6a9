import { join, posix, relative } from 'node:path'
import {
  ASIDE,
  CACHE,
  CANDIDATE,
  CURRENT,
  GENERATIONS,
  HOME,
  NEXT_CURRENT,
  NEXT_FLAT,
  TMP,
  WORK,
} from '../settings/layout.ts'
import { type Recognise, reasonOf, statPlain, UnusableFile } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { recogniserFor } from './generations.ts'
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

/** List the files of models, each once: two may share their data. */
export function filesOf(models: Model[]): Set<string> {
  return new Set(models.flatMap(({ path, references }) => [path, ...references]))
}

/** Names in a job's folder that are ours, or that a trainer describes its models in. A model's own folder may have such too. */
const reservedNames = new Set([
  ...[WORK, ASIDE, TMP, CACHE, HOME, GENERATIONS, CANDIDATE, CURRENT, NEXT_CURRENT, NEXT_FLAT],
  ...['manifest.json', 'manifest.json.next', 'manifest.sig', 'metadata.json'],
])

/** Can a file be published under this name in a job's folder? No part may climb out, nor the first be a name of our own. */
export function isPublishable(name: string): boolean {
  const parts = name.split('/')
  if (name.includes('\0') || parts.some(part => ['', '.', '..'].includes(part))) return false
  return !reservedNames.has(parts[0]!)
}

/** Is this the name of an ONNX model? Only those are parsed; a model of any other kind is opaque. */
export function isOnnx(name: string): boolean {
  return name.toLowerCase().endsWith('.onnx')
}

/** So many files of external data take less than a slice of time to look at. */
const FEW_REFERENCES = 16

/** List a model's files relative to its folder, in the order to publish them: external data first. */
export function namesOf(folder: string, model: Model): string[] {
  return [...model.references.map(path => relative(folder, path)), model.name]
}

/** Leave out what is external data of another model, though a glob calls it a model too. */
export function withoutData(models: Model[]): Model[] {
  const data = new Set(models.flatMap(({ references }) => references))
  return models.filter(({ path, name }) => isOnnx(name) || !data.has(path))
}

/** Return the folder that a model's name is relative to. */
export function folderOf({ path, name }: Model): string {
  return path.slice(0, -name.length - 1)
}

/**
 * Judge one file. A model is a regular file that is not empty; an ONNX model can also be loaded, as far as its structure
 * tells, with its external data beside or below it.
 *
 * @param folder the job's folder, its `work/` or one of its generations; external data must be in it
 * @param signal ends the judging of a large model
 * @returns the model, or a promise of it if its structure is large or it has much external data
 * @throws {UnusableFile} with the reason why the file is not a model; the reason of `signal`
 */
export function judgeModel(folder: string, name: string, signal?: AbortSignal): Model | Promise<Model> {
  const recognise = recogniserFor(folder)
  if (!isPublishable(name)) throw new UnusableFile('has a name that cannot be published')
  const { size } = statPlain(folder, name, recognise)
  if (size === 0n) throw new UnusableFile('is empty')
  const path = join(folder, name)
  const model = { path, name, bytes: Number(size), references: [] }
  if (!isOnnx(name)) return model
  const look = (it: [location: string, neededBytes: number]) => referenceOf(folder, name, it, recognise)
  const complete = ({ externalData }: OnnxStructure) =>
    externalData.size > FEW_REFERENCES
      ? lookInSlices(externalData, look, signal).then(references => ({ ...model, references }))
      : { ...model, references: Array.from(externalData, look) }
  const structure = inspectOnnx(path, (_, stats) => recognise(name, stats), signal)
  return structure instanceof Promise ? structure.then(complete) : complete(structure)
}

async function lookInSlices<T>(
  all: Iterable<T>,
  look: (it: T) => string,
  signal?: AbortSignal,
): Promise<string[]> {
  const slice = new Slice()
  const references: string[] = []
  for (const it of all) {
    references.push(look(it))
    await slice.giveWay(signal)
  }
  return references
}

function referenceOf(
  folder: string,
  name: string,
  [location, neededBytes]: [location: string, neededBytes: number],
  recognise: Recognise,
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

function referenceBytes(folder: string, reference: string, location: string, recognise: Recognise): number {
  try {
    return Number(statPlain(folder, reference, recognise).size)
  } catch (error) {
    throw new UnusableFile(`needs ${location}, which ${reasonOf(error)}`, { cause: error })
  }
}
