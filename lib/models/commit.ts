import { rename, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { CURRENT, foldersIn, GENERATIONS, NEXT_CURRENT } from '../settings/layout.ts'
import { renameDurably, syncFolder } from '../system/durable.ts'
import { type Generation, generationOf, listGenerations, nextGenerationDir } from './generations.ts'
import { type Manifest, readManifest } from './manifest.ts'
import { assertPlaceable, putFlatNames } from './put-flat-names.ts'

/**
 * Make a generation current: one rename, before which a reader finds the old one, and after which the new one, whole;
 * through a power cut too. Flat names follow at once.
 *
 * @param staged its manifest, if it is the one that is being made; it gets its number then
 * @returns the generation
 * @throws {TrainerError} as {@link assertPlaceable}, and the system's error: by then `current` may be the new one
 */
export async function makeCurrent(jobDir: string, number: number, staged?: Manifest): Promise<Generation> {
  const { generationsDir } = foldersIn(jobDir)
  const generation = generationOf(jobDir, number)
  assertPlaceable(jobDir, staged ?? readManifest(generation.dir)!)
  const next = join(jobDir, NEXT_CURRENT)
  await rm(next, { force: true })
  // From here on the next start goes on, wherever this stops: the link names a generation that is complete, or none.
  await symlink(`${GENERATIONS}/${number}`, next)
  await syncFolder(jobDir)
  if (staged) {
    await rename(nextGenerationDir(jobDir), generation.dir)
    await syncFolder(generationsDir)
  }
  await renameDurably(next, join(jobDir, CURRENT))
  const retired = new Set(listGenerations(jobDir).flatMap(externalDataOf))
  await putFlatNames(jobDir, generation, { retired })
  return generation
}

/** List a generation's external data by name. */
function externalDataOf({ dir }: Generation): string[] {
  const { files = {}, metadata } = readManifest(dir) ?? {}
  const models = new Set(metadata?.models)
  return Object.keys(files).filter(name => !models.has(name))
}
