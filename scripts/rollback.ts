/** Make an earlier model current: node --import tsx scripts/rollback.ts JOB [--to GENERATION] [--dry-run] */
import { TrainerError } from '../lib/errors.ts'
import { currentGeneration, rolledBackFrom } from '../lib/models/generations.ts'
import { recover } from '../lib/models/recovery.ts'
import {
  assertReturnable,
  chooseGeneration,
  formerGeneration,
  release,
  rollBack,
} from '../lib/models/rollback.ts'
import { type Job, perform, type Run } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { count } from '../lib/text.ts'
import { announce } from '../lib/training/job.ts'

/**
 * Make the generation before the current one, or the one that `--to` names, current again, under the lock of a run and in
 * its journal; or with `--release` let trainings publish again after that.
 *
 * @returns what was done, for a person
 * @throws {TrainerError} `usage`, `training-failed` if there is none or it is damaged, `storage`, also if it would take the
 * place of an operator's own model that is in no generation
 */
async function rollback(run: Run): Promise<string> {
  const [job] = run.jobs as [Job]
  try {
    return await goBack(job)
  } catch (error) {
    announce(job, error)
    throw error
  }
}

async function goBack(job: Job): Promise<string> {
  const { publishedDir, name, emit, run } = job
  const { command } = run
  const { dryRun, to, release: releases } = command
  if (releases && to !== undefined)
    throw new TrainerError('usage', 'Choose --to or --release: what is current stays with --release')
  if (!dryRun)
    for (const message of await recover(publishedDir)) emit({ event: 'warning', job: name, message })
  if (releases) return releaseJob(job)
  const current = currentGeneration(publishedDir)
  if (!current) {
    throw new TrainerError(
      'training-failed',
      `Cannot roll back ${name}: no generation is published in ${publishedDir}`,
    )
  }
  const target =
    to === undefined ? formerGeneration(name, publishedDir) : chooseGeneration(name, publishedDir, to)
  if (dryRun) {
    await assertReturnable(name, publishedDir, target)
    emit({
      event: 'model.rollback',
      job: name,
      generation: target.number,
      from: current.number,
      dryRun: true,
    })
    return `dry run, nothing was changed; would make generation ${target.number} of ${name} current`
  }
  const from = await rollBack(name, publishedDir, target)
  emit({ event: 'model.rollback', job: name, generation: target.number, from })
  const isBack = target.number < from
  return (
    `generation ${target.number} of ${name} is current, ${from} was` +
    (isBack ? '; a training of the same data is published again once accept agrees, or after --release' : '')
  )
}

async function releaseJob({ name, publishedDir, run }: Job): Promise<string> {
  const newer = rolledBackFrom(publishedDir)
  if (!newer.length) return `nothing to do: ${name} was not rolled back`
  const numbers = newer.map(({ number }) => number).join(', ')
  if (run.command.dryRun) return `dry run, nothing was changed; would remove generation ${numbers} of ${name}`
  const gone = await release(name, publishedDir)
  return `${count(gone.length, 'generation')} of ${name} removed (${numbers}); the next training is published as any other`
}

if (isEntry(import.meta)) {
  const summary = 'Make an earlier generation of a job current, after a look at its hashes.'
  process.exitCode = await perform(
    {
      name: 'scripts/rollback.ts',
      summary,
      takes: ['to', 'release', 'dry-run', 'json'],
      needsModelsDir: true,
      needsOneJob: true,
    },
    rollback,
  )
}
