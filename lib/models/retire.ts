import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { foldersIn } from '../settings/layout.ts'
import { syncFolder } from '../system/durable.ts'
import { currentGeneration, type Generation, listGenerations } from './generations.ts'
import { MANIFEST, readManifest } from './manifest.ts'
import { removeFlatNames } from './put-flat-names.ts'

/**
 * Remove generations beyond the last `keep` that were current before the current one, oldest first; never `spared`, which
 * readers may still be loading. Those that the job was rolled back from stay until a new one is published.
 *
 * @throws the system's error
 */
export async function retire(jobDir: string, keep: number, spared?: Generation): Promise<void> {
  const current = currentGeneration(jobDir)
  if (!current) return
  const kept = new Set(formerGenerations(jobDir, current).slice(0, keep))
  for (const generation of listGenerations(jobDir)) {
    const { number } = generation
    if (number < current.number && number !== spared?.number && !kept.has(number))
      await dropGeneration(jobDir, generation)
  }
}

/**
 * List the numbers of the generations that were current before one, the last of them first. What the job was rolled back
 * from in between is not among them: each manifest tells what its generation has replaced.
 */
export function formerGenerations(jobDir: string, { number }: Generation): number[] {
  const manifests = new Map(
    listGenerations(jobDir).map(({ number, dir }) => [number, readManifest(dir)] as const),
  )
  const former: number[] = []
  for (let below = number, at: number | undefined = number; at !== undefined; ) {
    const replaced: number | undefined = manifests.get(at)?.metadata.replaces
    if (replaced !== undefined && replaced < below) below = replaced + 1
    at = [...manifests.keys()].findLast(it => it < below)
    if (at !== undefined) former.push(at)
    below = at ?? 0
  }
  return former
}

/** Remove a generation that is not current. Its files stay where other generations have them too. */
export async function dropGeneration(jobDir: string, generation: Generation): Promise<void> {
  const { dir } = generation
  const current = currentGeneration(jobDir)
  if (current) await removeFlatNames(jobDir, generation, current)
  // It is none any more once its manifest is gone, wherever the removal is cut off.
  await rm(join(dir, MANIFEST), { force: true })
  await rm(dir, { recursive: true, force: true })
  if (existsSync(foldersIn(jobDir).generationsDir)) await syncFolder(foldersIn(jobDir).generationsDir)
}
