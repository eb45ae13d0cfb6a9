import { lstatSync } from 'node:fs'
import { join, relative } from 'node:path'
import { reasonOf } from '../system/plain-file.ts'
import { compareModel, describeFile } from './compare.ts'
import { judgeAll, listNames } from './find.ts'
import { flatNamesOf } from './flat-names.ts'
import { type Generation, isSameFile, listGenerations } from './generations.ts'
import { isOnnx, type Model, namesOf } from './judge.ts'
import { MANIFEST, readManifest } from './manifest.ts'

/**
 * Find an operator's own models in the place of flat names of the current generation: valid ones whose files no generation
 * knows.
 *
 * @returns the models; the flat names that are theirs; and a note on each file that is in such a place but of no use
 */
export async function ownModels(
  jobDir: string,
  current: Generation,
): Promise<{ models: Model[]; leave: Set<string>; notes: string[] }> {
  const manifest = readManifest(current.dir)
  const own = { models: [] as Model[], leave: new Set<string>(), notes: [] as string[] }
  const files = manifest ? flatNamesOf(manifest).files : []
  const foreign: string[] = []
  for (const name of files)
    if (name !== MANIFEST && (await isForeign(jobDir, current, name))) foreign.push(name)
  if (!foreign.length) return own
  const used = new Set<string>()
  for (const name of manifest!.metadata.models.filter(it => isOnnx(it) && files.includes(it))) {
    const { valid } = await judgeAll(jobDir, [name])
    const names = valid.flatMap(model => namesOf(jobDir, model))
    if (!valid[0] || !names.some(it => foreign.includes(it))) continue
    if (typeof (await compareModel(valid[0], manifest)) === 'string') continue
    own.models.push(valid[0])
    for (const it of names) used.add(it)
  }
  for (const name of used) own.leave.add(name)
  for (const name of foreign.filter(it => !used.has(it))) {
    own.notes.push(`${name} in ${jobDir} was no model that can be used; it is put back as published`)
  }
  return own
}

/**
 * List the external data that an operator's models in the job's folder need: ONNX models that no generation has.
 *
 * @returns names below the job's folder
 */
export async function foreignReferences(jobDir: string): Promise<string[]> {
  const known = new Set(
    listGenerations(jobDir).flatMap(({ dir }) => Object.keys(readManifest(dir)?.files ?? {})),
  )
  const names = (await listNames(jobDir, [ANY_ONNX])).filter(name => !known.has(name))
  const { valid } = await judgeAll(jobDir, names)
  return valid.flatMap(({ references }) => references.map(path => relative(jobDir, path)))
}

/** Matches every ONNX model: only those refer to other files. */
const ANY_ONNX = '**/*.[oO][nN][nN][xX]'

/** Is there a file under a flat name whose content no generation has had under it? */
async function isForeign(jobDir: string, current: Generation, name: string): Promise<boolean> {
  const path = join(jobDir, name)
  if (!lstatSync(path, { throwIfNoEntry: false }) || isSameFile(path, join(current.dir, name))) return false
  const generations = listGenerations(jobDir)
  if (generations.some(({ dir }) => isSameFile(path, join(dir, name)))) return false
  try {
    const { sha256 } = await describeFile(jobDir, name)
    return !generations.some(({ dir }) => readManifest(dir)?.files[name] === sha256)
  } catch (error) {
    reasonOf(error)
    return true
  }
}
