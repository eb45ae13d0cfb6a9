import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { Slice } from '../system/slice.ts'
import { type Comparison, compareModel } from './compare.ts'
import { type Findings, findModels, judgeAll } from './find.ts'
import { currentGeneration } from './generations.ts'
import type { Model } from './judge.ts'
import { type Manifest, readManifest } from './manifest.ts'
import { ownModels } from './own-models.ts'

/** The published models, and how each file of the valid ones compares with the manifest. */
export type Inspection = Findings & {
  comparisons: Map<string, Comparison>
  /** Does the manifest name the models, for the same globs? */
  listed: boolean
  manifest: Manifest | undefined
}

/**
 * Inspect the published models, in the order of their manifest: those of the current generation, or what an operator has put
 * in the place of their flat names.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed; the reason of `signal`
 */
export async function inspectPublished(
  jobDir: string,
  globs: string[],
  signal?: AbortSignal,
): Promise<Inspection> {
  const current = currentGeneration(jobDir)
  const dir = current?.dir ?? jobDir
  const manifest = readManifest(dir)
  const { models = [], model_globs } = manifest?.metadata ?? {}
  const listed = models.length > 0 && isDeepStrictEqual(model_globs, globs)
  const candidates = listed
    ? await judgeAll(dir, models, signal)
    : await findModels(dir, globs, undefined, signal)

  const inspection: Inspection = { valid: [], rejected: [], comparisons: new Map(), listed, manifest }
  const own = current ? (await ownModels(jobDir, current)).models : []
  const isOwn = (path: string) => own.some(({ name }) => path === join(dir, name))
  inspection.rejected.push(...candidates.rejected.filter(({ path }) => !isOwn(path)))
  const places = new Map(models.map((name, place) => [name, place]))
  const placeOf = ({ name }: Model) => places.get(name) ?? models.length
  const found = [...candidates.valid.filter(({ path }) => !isOwn(path)), ...own]
  const slice = new Slice()
  // Consumers load the first.
  for (const model of found.sort((one, other) => placeOf(one) - placeOf(other))) {
    await slice.giveWay(signal)
    const compared = await compareModel(model, manifest, signal)
    if (typeof compared === 'string') inspection.rejected.push({ path: model.path, reason: compared })
    else {
      inspection.valid.push(model)
      for (const [name, comparison] of compared) inspection.comparisons.set(name, comparison)
    }
  }
  return inspection
}
