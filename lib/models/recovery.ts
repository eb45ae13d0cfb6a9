import { lstatSync, type Stats } from 'node:fs'
import { rm, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { TrainerError } from '../errors.ts'
import { CURRENT, foldersIn, GENERATIONS, NEXT_CURRENT, NEXT_FLAT } from '../settings/layout.ts'
import { renameDurably, storageError } from '../system/durable.ts'
import { folderExists } from '../system/plain-file.ts'
import {
  currentGeneration,
  type Generation,
  isSameFile,
  listGenerations,
  nextGenerationDir,
} from './generations.ts'
import { isWhole, MANIFEST, readManifest } from './manifest.ts'
import { ownModels } from './own-models.ts'
import { dropSuperseded, finishPublication } from './publish-flat.ts'
import { putFlatNames } from './put-flat-names.ts'
import { dropGeneration, retire } from './retire.ts'

/**
 * Settle a publication or a rollback that was cut off, put the flat names of the current generation, and remove what is
 * left of others: flat names of external data that readers were just loading, and generations beyond `keepGenerations`.
 * Must run under the lock, before anything else touches the job's folder.
 *
 * An operator's own models among the flat names stay, for the day-1 check to adopt.
 *
 * @returns what an operator should know
 * @throws {TrainerError} `storage`, also if something else has the place of the manifest, of `current` or of the folder:
 * a training would be in vain
 */
export async function recover(jobDir: string, keepGenerations?: number): Promise<string[]> {
  try {
    if (!folderExists(jobDir)) return []
    assertOurs(jobDir)
    await rm(join(jobDir, NEXT_FLAT), { force: true })
    await finishPublication(jobDir)
    await finishSwitch(jobDir)
    await rm(nextGenerationDir(jobDir), { recursive: true, force: true })
    const current = currentGeneration(jobDir)
    if (current) return await settle(jobDir, current, keepGenerations)
    // A link that leads nowhere hides what is published as flat files.
    await rm(join(jobDir, CURRENT), { force: true })
    await mendDoubleNames(jobDir, jobDir)
    await dropSuperseded(jobDir)
    return []
  } catch (cause) {
    throw storageError(`Cannot finish the last publication in ${jobDir}`, cause)
  }
}

/** Assert that what has our names is what we make: anything else is somebody's, and not ours to remove. */
function assertOurs(jobDir: string): void {
  const expected = [
    { name: MANIFEST, what: 'a file', isIt: (stats: Stats) => !stats.isDirectory() },
    { name: CURRENT, what: 'a link', isIt: (stats: Stats) => stats.isSymbolicLink() },
    { name: GENERATIONS, what: 'a folder', isIt: (stats: Stats) => stats.isDirectory() },
  ]
  for (const { name, what, isIt } of expected) {
    const stats = lstatSync(join(jobDir, name), { throwIfNoEntry: false })
    if (!stats || isIt(stats)) continue
    const found = stats.isDirectory() ? 'a folder' : stats.isSymbolicLink() ? 'a link' : 'a file'
    throw new TrainerError('storage', `${join(jobDir, name)} is ${found}, expected ${what}; move it away`)
  }
}

/** Go on where a switch of `current` was cut off: the generation that the next link names is complete, or not there yet. */
async function finishSwitch(jobDir: string): Promise<void> {
  const next = join(jobDir, NEXT_CURRENT)
  if (!lstatSync(next, { throwIfNoEntry: false })) return
  const generation = currentGeneration(jobDir, NEXT_CURRENT)
  if (generation && isWhole(generation)) await renameDurably(next, join(jobDir, CURRENT))
  else await rm(next, { force: true })
}

async function settle(
  jobDir: string,
  current: Generation,
  keepGenerations: number | undefined,
): Promise<string[]> {
  for (const generation of listGenerations(jobDir)) {
    // The manifest of one that the job was rolled back from is enough to know it again.
    const isKnown = generation.number > current.number && readManifest(generation.dir)
    if (generation.number === current.number || isKnown || isWhole(generation)) continue
    await dropGeneration(jobDir, generation)
  }
  await mendDoubleNames(jobDir, current.dir)
  const { leave, notes } = await ownModels(jobDir, current)
  await putFlatNames(jobDir, current, { leave })
  if (keepGenerations !== undefined) await retire(jobDir, keepGenerations)
  return notes
}

/** Remove the names that published files have had in `work/`: after a power cut a moved file may have both (btrfs). */
async function mendDoubleNames(jobDir: string, dir: string): Promise<void> {
  const { files = {}, metadata } = readManifest(dir) ?? {}
  const { workDir } = foldersIn(jobDir)
  for (const name of Object.keys(files)) {
    for (const former of [name, metadata?.renamed?.[name] ?? name]) {
      if (isSameFile(join(dir, name), join(workDir, former))) await unlink(join(workDir, former))
    }
  }
}
