import { existsSync, lstatSync, rmdirSync, statSync } from 'node:fs'
import { copyFile, mkdir, rm } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { messageOf, TrainerError } from '../errors.ts'
import { findModels } from '../models/find.ts'
import { filesOf, type Model } from '../models/judge.ts'
import { publishedFiles, supersededFiles } from '../models.ts'
import { limitedTo, type Quota } from '../quotas.ts'
import type { Job } from '../run.ts'
import { foldersIn } from '../settings/layout.ts'
import { removeWhole } from '../storage/empty-folder.ts'
import { type MeasureOptions, measure } from '../storage/measure.ts'
import { pruneTo } from '../storage.ts'
import { storageError } from '../system/durable.ts'
import { makeFolder } from '../system/plain-file.ts'
import { formatBytes, MIB } from '../text.ts'
import { filledForGood } from './limit.ts'

/** Does the job train elsewhere than where its models are published? */
export function usesScratch({ jobDir, publishedDir }: Job): boolean {
  return jobDir !== publishedDir
}

/**
 * Make the folder on this machine's own disk in which the job trains. Its quota there is what its published files leave of
 * it. Those that may be pruned, such as earlier generations, take nothing of it: they go when the new models need their
 * place.
 *
 * @returns leaves nothing on this machine's own disk, however the job came out: its next run may be on another machine
 * @throws {TrainerError} `storage` if the scratch folder is missing, or somebody else's has its place; `quota-exceeded` if
 * the published files leave nothing
 */
export async function openScratch(job: Job): Promise<() => Promise<void>> {
  const { scratch } = job.run.command
  if (scratch === undefined) return async () => {}
  if (!statSync(scratch, { throwIfNoEntry: false })?.isDirectory()) {
    const message = `Cannot train in ${scratch}: there is no such folder on this machine; make or mount it`
    throw new TrainerError('storage', message)
  }
  const { name, publishedDir, quota } = job
  const { usedBytes, keptBytes } = await usageOfPublished(job)
  const quotaBytes = quota.quotaBytes - keptBytes
  if (quotaBytes <= 0) {
    const situation = { job: name, dir: publishedDir, usedBytes, keptBytes, quotaBytes: quota.quotaBytes }
    throw filledForGood(situation, { isRefusal: true }) // on scratch there is nothing to delete
  }
  job.quota = { ...quota, quotaBytes, maxDiskMb: quotaBytes / MIB }
  if (job.run.command.dryRun) return async () => {}
  const siteDir = dirname(job.jobDir)
  makeFolder(siteDir)
  if (lstatSync(siteDir).uid !== process.geteuid?.()) {
    throw new TrainerError('storage', `Cannot train in ${siteDir}: it is another user's; remove it`)
  }
  // A run that was killed may have left it.
  await removeWhole(job.jobDir)
  return () => closeScratch(job)
}

/** Measure what a job's published files take of its quota, and what of that they take for good. */
async function usageOfPublished({
  publishedDir,
  quota,
}: Job): Promise<{ usedBytes: number; keptBytes: number }> {
  if (!existsSync(publishedDir)) return { usedBytes: 0, keptBytes: 0 }
  const { usedBytes, prunableBytes } = await measure(publishedDir, await publishedRules(publishedDir, quota))
  return { usedBytes, keptBytes: usedBytes - prunableBytes }
}

async function publishedRules(publishedDir: string, { globs, models }: Quota): Promise<MeasureOptions> {
  const superseded = supersededFiles(publishedDir)
  return { ...globs, superseded, keep: await publishedFiles(publishedDir, models) }
}

/** Prune the folder of published files until there is room in the quota for so many bytes more. */
async function makeRoom(
  { name, publishedDir, run, quota, onPrune, onFault }: Job,
  bytes: number,
): Promise<void> {
  const { quotaBytes } = limitedTo(run.quotas.jobs[name], run.command.maxDiskMb)
  const rules = await publishedRules(publishedDir, quota)
  const pruning = { ...rules, onPrune, onFault, signal: run.signal }
  try {
    await pruneTo(publishedDir, Math.max(0, quotaBytes - bytes), pruning)
  } catch (error) {
    if (!(error instanceof TrainerError && error.code === 'quota-exceeded')) throw error
    const usedBytes = bytes + (error.usage?.usedBytes ?? 0)
    throw new TrainerError(
      'quota-exceeded',
      `Model too large for quota: ${name}'s model and what is published take ${formatBytes(usedBytes)} of ` +
        `${formatBytes(quotaBytes)} in ${publishedDir}; raise its maxDiskMb or shrink the model`,
      { cause: error, usage: { usedBytes, limitBytes: quotaBytes }, isRefusal: true }, // on scratch there is nothing to delete
    )
  }
}

/**
 * Bring models to the folder from which they are published in one step; nothing that is published changes by that.
 *
 * @returns the same models there
 * @throws {TrainerError} `storage`, or the interruption; what was brought is gone again. `quota-exceeded` if there is no room
 * for them
 */
export async function bringModels(job: Job, models: Model[]): Promise<Model[]> {
  if (!usesScratch(job)) return models
  const { workDir } = foldersIn(job.publishedDir)
  const files = filesOf(models)
  const names = Array.from(files, file => relative(job.workDir, file))
  await makeRoom(
    job,
    Array.from(files, file => lstatSync(file).size).reduce((sum, bytes) => sum + bytes, 0),
  )
  try {
    makeFolder(workDir)
    for (const name of names) {
      job.run.signal.throwIfAborted()
      const target = join(workDir, name)
      await rm(target, { recursive: true, force: true })
      await mkdir(dirname(target), { recursive: true, mode: 0o750 })
      await copyFile(join(job.workDir, name), target)
    }
  } catch (cause) {
    await removeAll(names.map(name => join(workDir, name)))
    throw storageError(`Cannot bring the models of ${job.name} to ${workDir}`, cause)
  }
  const { valid } = await findModels(workDir, job.quota.models)
  return valid.filter(({ name }) => models.some(it => it.name === name))
}

/** Remove what {@link bringModels} has brought and nobody has published; nothing else would. */
export async function takeBack(job: Job, brought: Model[]): Promise<void> {
  if (usesScratch(job)) await removeAll([...filesOf(brought)])
}

async function removeAll(files: string[]): Promise<void> {
  for (const file of files) await rm(file, { force: true }).catch(() => {}) // the disk is failing; that is told already
}

async function closeScratch(job: Job): Promise<void> {
  try {
    await removeWhole(job.jobDir)
    rmdirSync(dirname(job.jobDir))
  } catch (error) {
    const message = `${job.jobDir} is left on this machine: ${messageOf(error)}`
    job.emit({ event: 'warning', job: job.name, message })
  }
}
