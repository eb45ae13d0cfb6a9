import { TrainerError } from '../errors.ts'
import { publish } from '../models/publish.ts'
import { readReported } from '../models/trainer-metadata.ts'
import { findModels, publishedFiles } from '../models.ts'
import { lookAt } from '../storage/measure.ts'
import { takeFiles } from '../storage/mend-folder.ts'
import { enforceLimit } from '../storage.ts'
import { MIB } from '../text.ts'
import { assertSameFolder, type Job } from './job.ts'
import type { Budget } from './preflight.ts'
import type { Report } from './train.ts'

/**
 * After a training that exited with 0: prune to the limit, check its models, publish them.
 *
 * @throws {TrainerError} `quota-exceeded` if it does not fit, `training-failed` if there is no valid model; what was
 * published before stays as it was
 */
export async function postflight(job: Job, { limitBytes, folderId }: Budget, report: Report): Promise<void> {
  const { name, quota, dir, workDir, emit, onPrune, run } = job
  run.signal.throwIfAborted()
  assertSameFolder(job, folderId)
  const { valid, rejected } = await findModels(workDir, quota.models)
  const keep = [
    ...(await publishedFiles(dir, quota.models)),
    ...valid.flatMap(({ path, references }) => [path, ...references]),
  ]
  await enforceLimit(dir, limitBytes / MIB, { prune: quota.prune, keep, onPrune, signal: run.signal })
  const { usedBytes, freeBytes } = await lookAt(dir, { keep })
  emit({ event: 'storage.usage', job: name, phase: 'postflight', usedBytes, limitBytes, freeBytes })

  const reasons = rejected.map(({ path, reason }) => `${path} ${reason}`)
  if (!valid.length) throw report.ranOut ?? noModel(name, workDir, quota.models, reasons)
  for (const reason of reasons) emit({ event: 'warning', job: name, message: `not published: ${reason}` })
  const { reported, warning } = readReported(workDir)
  if (warning) emit({ event: 'warning', job: name, message: warning })
  takeFiles(valid.flatMap(({ path, references }) => [path, ...references]))
  const facts = { globs: quota.models, trainedAt: new Date(), seconds: report.seconds, reported }
  for (const model of await publish(dir, name, valid, facts))
    emit({ event: 'model.publish', job: name, ...model })
}

function noModel(job: string, workDir: string, globs: string[], reasons: string[]): TrainerError {
  const what = reasons.length ? reasons.join('; ') : `nothing in ${workDir} matches ${globs.join(', ')}`
  return new TrainerError(
    'training-failed',
    `${job}'s training exited with 0 but left no valid model: ${what}`,
  )
}
