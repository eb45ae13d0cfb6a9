import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Guarantee } from '../events.ts'
import { findModels, MOST_TOLD } from '../models/find.ts'
import { TRAINER_METADATA } from '../models/trainer-metadata.ts'
import { publishedFiles, supersededFiles } from '../models.ts'
import type { Job, Run } from '../run.ts'
import { foldersIn, imageOf } from '../settings/layout.ts'
import { accountOf, capOf, ownSizeOf } from '../storage/capacity.ts'
import { removeWhole } from '../storage/empty-folder.ts'
import type { Entry } from '../storage/entry.ts'
import { findWork, lookAt, type MeasureOptions } from '../storage/measure.ts'
import { mendWork } from '../storage/mend-folder.ts'
import { checkpointTest, keepTest } from '../storage/rules.ts'
import { steadyGrowth } from '../storage/steady-growth.ts'
import { checkUsage, enforceLimit, pruneForRoom } from '../storage.ts'
import { escapeBytes, isWithin } from '../system/bytes.ts'
import { makeFolder, nearestVisible } from '../system/plain-file.ts'
import { killAll, trainingProcesses } from '../system/processes.ts'
import { programRunner } from '../system/programs.ts'
import { commandFor } from '../system/start-command.ts'
import { formatBytes, MIB } from '../text.ts'
import { beginAttempt, isUnpublished } from './attempts.ts'
import { folderIdOf } from './job.ts'
import { type Figures, type Limit, MIN_FREE_INODES, planBudget, type Start } from './limit.ts'
import { assertPrograms } from './program.ts'
import { useSandbox } from './sandbox.ts'
import { usesScratch } from './scratch.ts'

/** The bytes that a training may use, and what bounds them; found out before it starts. */
export type Budget = Limit & {
  /** Charged now and not prunable: the output of the training has to fit beside it. */
  keptBytes: number
  /** The part of the limit that the training may use in its output folder: published models stay beside that. */
  toldBytes: number
  /** The figures by which the limit was planned. */
  start: Start
  isSandboxed: boolean
  /** As {@link folderIdOf} gives it. */
  folderId: string | undefined
  /** The rules of pruning in this run; `keep` is published and stays. */
  rules: Pick<MeasureOptions, 'prune' | 'keepGlobs' | 'superseded'> & { keep: string[] }
  /** The names of files that a published training left, and that this one may go on from. */
  stayed: string[]
}

const RESERVE_BYTES = 64 * MIB
/** Or a twentieth of all, where there are few. */
const RESERVE_INODES = 1024

/**
 * Prepare a training: end the processes that an earlier one left, empty the temporary folder, measure, prune down to the
 * quota, and refuse a start that could only fail.
 *
 * @throws {TrainerError} `quota-exceeded`, `no-space`, `storage`, or `config` for a required sandbox
 */
export async function preflight(job: Job): Promise<Budget> {
  const { name, quota, jobDir: dir, emit, onPrune, onFault, run } = job
  const { dryRun } = run.command
  const { quotaBytes } = quota
  assertPrograms(job)
  if (!dryRun) makeFolder(dir)
  const folderExists = existsSync(dir)
  const isCapped = folderExists && capOf(dir, quotaBytes) !== undefined
  const isSandboxed = useSandbox(name, quota.sandbox, quota.network, fault => warnOnce(job, fault))
  const guarantee: Guarantee = `${isCapped ? 'kernel' : 'watch'}${isSandboxed ? '+sandbox' : ''}`
  emit({ event: 'job.start', job: name, dir, limitBytes: quotaBytes, guarantee, ...(dryRun && { dryRun }) })

  if (!isCapped && !usesScratch(job) && existsSync(imageOf(run.modelsDir, name).image)) {
    emit({ event: 'warning', job: name, message: describeIdleVolume(job) })
  }

  const place = { job: name, dir, isCapped, isSandboxed, folderId: folderIdOf(job) }
  if (!dryRun) {
    await clearWork(job)
    if (!isCapped) await steadyWork(job)
  }
  const keep = await publishedFiles(dir, quota.models)
  const rules = { ...quota.globs, superseded: supersededFiles(dir), keep }
  const stayed = folderExists ? await beginAttempt(job) : []
  const pruning = { ...rules, dryRun, onPrune, onFault, signal: run.signal }
  if (folderExists) await enforceLimit(dir, quota.maxDiskMb, pruning)
  if (isCapped && !dryRun) await pruneForRoom(dir, { bytes: 0, inodes: MIN_FREE_INODES }, pruning)
  return { ...place, rules, stayed, ...(await plan(job, isCapped, rules)) }
}

/** Let the files of the training take no more of the disk than is in them, where the filesystem would give them more. */
async function steadyWork({ name, workDir, run, emit }: Job): Promise<void> {
  const fault = await steadyGrowth(workDir, programRunner(run.lockFd))
  if (fault) emit({ event: 'warning', job: name, message: fault })
}

const warned = new WeakMap<Run, string>()

/** Say what the sandbox does not do for trainings: once in a run, not for each of its jobs. */
function warnOnce({ run, emit }: Job, message: string): void {
  if (warned.get(run) === message) return
  warned.set(run, message)
  emit({ event: 'warning', message })
}

/** Say why the job's volume does not bound it, and what would help. */
function describeIdleVolume({ name, quota, jobDir: dir, run }: Job): string {
  const { quotasFile, maxDiskMb } = run.command
  const commandTo = (verb: string) =>
    commandFor({ modelsDir: run.modelsDir, quotasFile }, 'scripts/volume.ts', verb, name)
  const sizeBytes = existsSync(dir) ? ownSizeOf(dir) : undefined
  if (sizeBytes === undefined) {
    const remedy = `mount it as root: ${commandTo('mount')}`
    return `its volume is not mounted, and what is trained now would be hidden below it; ${remedy}`
  }
  const [size, limitSize] = [formatBytes(sizeBytes), formatBytes(quota.quotaBytes)]
  const largerThan = (limit: string) =>
    `its volume, of ${size}, is larger than ${limit} of ${limitSize}, so the kernel does not bound the job at that`
  // A volume is made for the quota, not for the limit of a single run.
  if (maxDiskMb !== undefined) return largerThan("this run's limit")
  return `${largerThan('its quota')}; remove it as root and create it anew: ${commandTo('remove')}`
}

/** Reckon the limit of this run from the bytes used, kept and free. */
async function plan(
  { name, quota, jobDir: dir, workDir, emit }: Job,
  isCapped: boolean,
  rules: MeasureOptions,
): Promise<Omit<Budget, 'job' | 'dir' | 'isCapped' | 'isSandboxed' | 'folderId' | 'rules' | 'stayed'>> {
  // A dry run makes no folder.
  const account = accountOf(nearestVisible(dir))
  const look = existsSync(dir)
    ? await lookAt(dir, rules)
    : { ...account, usedBytes: 0, usedInodes: 0, prunableBytes: 0, prunable: [], fromFuture: undefined }
  if (look.fromFuture !== undefined) {
    const what = escapeBytes(look.fromFuture)
    const message = `${what} has a modification time in the future; the time of its last change counts instead`
    emit({ event: 'warning', job: name, message })
  }
  // The kernel counts more than files on a filesystem of its own.
  const { usedBytes, usedInodes, freeBytes, freeInodes } = isCapped ? account : look
  // Sparse files free less than they are charged.
  const keptBytes = Math.max(0, usedBytes - look.prunableBytes)
  const start = { usedBytes, usedInodes, freeBytes, freeInodes, walkedBytes: look.usedBytes, account }
  const minFreeBytes = quota.minFreeMb * MIB
  const { quotaBytes } = quota
  // On a filesystem of its own, its size is what there is, however small.
  const mostBytes = isCapped ? Math.min(quotaBytes, usedBytes + freeBytes) : quotaBytes
  const reserve = isCapped ? { reserveBytes: 0, reserveInodes: 0 } : reserveOf(start)
  const situation = { ...start, ...reserve, quotaBytes: mostBytes, keptBytes, minFreeBytes, isCapped }
  const limits = planBudget({ job: name, dir, ...situation })
  const { limitBytes } = limits
  emit({ event: 'storage.usage', job: name, phase: 'preflight', usedBytes, limitBytes, freeBytes })
  const isDiskLimit = limitBytes < quotaBytes && !isCapped
  if (isDiskLimit) {
    const message = `the disk holds less than the quota of ${formatBytes(quotaBytes)}: this run may use ${formatBytes(limitBytes)}`
    emit({ event: 'warning', job: name, message })
  }
  // Nobody can use what the filesystem takes for itself.
  const ownBytes = existsSync(workDir) ? await checkUsage(workDir) : 0
  const besideBytes = usedBytes - ownBytes - prunableBeside(dir, look.prunable)
  return { ...limits, ...reserve, isDiskLimit, keptBytes, toldBytes: limitBytes - besideBytes, start }
}

/** Reckon what can make room for a training beside its output folder. */
function prunableBeside(jobDir: string, prunable: Entry[]): number {
  if (!prunable.length) return 0
  const work = findWork(jobDir)
  const beside = prunable.filter(({ folder }) => !isWithin(folder, work))
  return beside.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** Reckon what is left to the rest of the machine on a shared disk. */
function reserveOf({ usedInodes, freeInodes }: Figures): Pick<Budget, 'reserveBytes' | 'reserveInodes'> {
  const reserveInodes = Math.min(RESERVE_INODES, Math.floor((usedInodes + freeInodes) / 20))
  return { reserveBytes: RESERVE_BYTES, reserveInodes }
}

/** Leave checkpoints to resume from in `work/`, and nothing that could be mistaken for the result of a training. */
async function clearWork(job: Job): Promise<void> {
  const { name, quota, workDir, publishedDir, emit, run } = job
  await killAll(() => trainingProcesses(workDir))
  await mendWork(workDir)
  const { valid, rejected } = await findModels(
    workDir,
    quota.models,
    await checkpointTest(quota.globs),
    run.signal,
  )
  await removeWhole(join(workDir, TRAINER_METADATA))
  // The last model that was not accepted: this training makes another.
  await removeWhole(foldersIn(publishedDir).candidateDir)
  // The best model so far of a training that goes on.
  const isKept = isUnpublished(job) ? await keepTest(quota.globs) : () => false
  const left = [...valid, ...rejected].filter(it => !isKept(relative(workDir, it.path)))
  for (const [index, { path }] of left.entries()) {
    run.signal.throwIfAborted()
    await removeWhole(path)
    if (index >= MOST_TOLD) continue
    const more =
      index === MOST_TOLD - 1 && left.length > MOST_TOLD ? ` and ${left.length - MOST_TOLD} more` : ''
    const message =
      `removed ${path}${more}: an earlier training left it unpublished, and models in quotas.json names it; ` +
      'if trainings resume from it, name it in prune or keep'
    emit({ event: 'warning', job: name, message })
  }
}
