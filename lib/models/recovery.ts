import { lstatSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { TrainerError } from '../errors.ts'
import { foldersIn } from '../layout.ts'
import { publishedFiles } from '../models.ts'
import { moveDurably, storageError } from '../system/durable.ts'
import { folderExists, reasonOf, statPlain } from '../system/plain-file.ts'
import { compareFile } from './compare.ts'
import {
  commitManifest,
  MANIFEST,
  type Manifest,
  NEXT_MANIFEST,
  planManifest,
  readManifest,
} from './manifest.ts'

/** Matches every ONNX model: only those refer to other files. */
const ANY_ONNX = '**/*.[oO][nN][nN][xX]'

/**
 * Settle a publication that was cut off, and remove the external data of replaced models, which was kept for readers
 * that were just loading them. Must run under the lock, before anything else touches the job's folder.
 *
 * @throws {TrainerError} `storage`, also if something else has the place of the manifest or of the folder: a training
 * would be in vain
 */
export async function recover(jobDir: string): Promise<void> {
  if (!folderExists(jobDir)) return
  const manifest = join(jobDir, MANIFEST)
  if (lstatSync(manifest, { throwIfNoEntry: false })?.isDirectory()) {
    throw new TrainerError('storage', `${manifest} is a folder, expected a file; move it away`)
  }
  try {
    await finishPublication(jobDir)
    await dropSuperseded(jobDir)
  } catch (cause) {
    throw storageError(`Cannot finish the last publication in ${jobDir}`, cause)
  }
}

/**
 * Finish a publication that was cut off. If its manifest is on disk, move everything that it lists into place. Without
 * one it had changed nothing that is published, and its leftovers are removed.
 */
export async function finishPublication(jobDir: string): Promise<void> {
  const planned = readManifest(jobDir, NEXT_MANIFEST)
  if (planned) await redo(jobDir, planned)
  await rm(join(jobDir, NEXT_MANIFEST), { force: true })
}

async function redo(jobDir: string, planned: Manifest): Promise<void> {
  const { workDir } = foldersIn(jobDir)
  const arrivals: string[] = []
  for (const name of Object.keys(planned.files)) {
    if (await isAsPlanned(workDir, name, planned)) arrivals.push(name)
    // Stop where somebody has removed or changed a file: the files in place stay, each whole.
    else if (!(await isAsPlanned(jobDir, name, planned))) return
  }
  for (const name of arrivals) await moveDurably(workDir, jobDir, name)
  await commitManifest(jobDir)
}

async function isAsPlanned(folder: string, name: string, planned: Manifest): Promise<boolean> {
  try {
    return ['same', 'touched'].includes(await compareFile(folder, name, planned))
  } catch (error) {
    reasonOf(error)
    return false
  }
}

async function dropSuperseded(jobDir: string): Promise<void> {
  const manifest = readManifest(jobDir)
  if (!manifest?.metadata.superseded.length) return
  const used = new Set(await publishedFiles(jobDir, [ANY_ONNX]))
  for (const name of manifest.metadata.superseded) {
    // Never remove through a folder that has become a link.
    if (!used.has(join(jobDir, name)) && isPlainFile(jobDir, name)) await rm(join(jobDir, name))
  }
  await planManifest(jobDir, { ...manifest, metadata: { ...manifest.metadata, superseded: [] } })
  await commitManifest(jobDir)
}

function isPlainFile(folder: string, name: string): boolean {
  try {
    return statPlain(folder, name).isFile()
  } catch (error) {
    reasonOf(error)
    return false
  }
}
