import { lstatSync, type Stats } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { TrainerError } from '../errors.ts'
import { foldersIn } from '../layout.ts'
import { moveDurably, syncFolder } from '../system/durable.ts'
import { reasonOf, statPlain } from '../system/plain-file.ts'
import { describeFile } from './compare.ts'
import { MANIFEST, type ManifestEntry, NEXT_MANIFEST } from './manifest.ts'
import { finishPublication } from './recovery.ts'

/**
 * Check that these files can take their places among the published ones.
 *
 * @param arrivals every file to publish, by name
 * @param shared names of external data, both of these models and of published models that stay
 * @throws {TrainerError} `training-failed` with the name that is taken
 */
export async function assertReplaceable(
  jobDir: string,
  arrivals: Map<string, ManifestEntry>,
  shared: Set<string>,
): Promise<void> {
  for (const [name, entry] of arrivals) {
    const found = statOf(join(jobDir, name))
    if (found?.isDirectory()) {
      throw new TrainerError(
        'training-failed',
        `Cannot publish ${name}: ${jobDir} has a folder of that name; move it away`,
      )
    }
    if (found && shared.has(name) && !(await hasContent(jobDir, name, entry))) {
      throw new TrainerError(
        'training-failed',
        `Cannot publish ${name}: ${jobDir} has other external data of that name, and a reader of the published model ` +
          'would get half of each; let the training give external data a new name each time, or remove that model',
      )
    }
  }
}

/**
 * Move files from `work/` to their places and make the next manifest the current one. A failing step is undone. Once a
 * published file has been replaced that is impossible, and the publication is finished instead, as after a crash.
 *
 * @throws the system's error, whether the publication was undone or finished
 */
export async function moveIntoPlace(jobDir: string, names: string[]): Promise<void> {
  const { workDir } = foldersIn(jobDir)
  const replaced = names.filter(name => statOf(join(jobDir, name)))
  try {
    for (const name of names) await moveDurably(workDir, jobDir, name)
    await rename(join(jobDir, NEXT_MANIFEST), join(jobDir, MANIFEST))
  } catch (error) {
    const moved = names.filter(name => !statOf(join(workDir, name)))
    const settled = moved.some(name => replaced.includes(name))
      ? finishPublication(jobDir)
      : undo(jobDir, moved)
    await settled.catch(() => {}) // the disk is failing; the next start settles it
    throw error
  }
  await syncFolder(jobDir)
}

async function undo(jobDir: string, moved: string[]): Promise<void> {
  for (const name of moved) await moveDurably(jobDir, foldersIn(jobDir).workDir, name)
  await rm(join(jobDir, NEXT_MANIFEST), { force: true })
}

async function hasContent(folder: string, name: string, { bytes, sha256 }: ManifestEntry): Promise<boolean> {
  try {
    return (
      statPlain(folder, name).size === BigInt(bytes) && (await describeFile(folder, name)).sha256 === sha256
    )
  } catch (error) {
    reasonOf(error)
    return false
  }
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false })
}
