import { setTimeout as delay } from 'node:timers/promises'
import { TrainerError } from '../errors.ts'
import { type Findings, findModels, MOST_TOLD, tellRejected } from '../models/find.ts'
import { type Generation, nextGenerationDir } from '../models/generations.ts'
import { filesOf } from '../models/judge.ts'
import { type Published, publish } from '../models/publish.ts'
import type { Staged } from '../models/stage.ts'
import { readReported } from '../models/trainer-metadata.ts'
import { assertOwnLock } from '../run/lost-lock.ts'
import type { Job } from '../run.ts'
import { stateDirOf } from '../settings/layout.ts'
import { accountOf } from '../storage/capacity.ts'
import { lookAt } from '../storage/measure.ts'
import { takeFiles } from '../storage/mend-folder.ts'
import { describeRest } from '../storage/rest.ts'
import { checkpointTest } from '../storage/rules.ts'
import { type EnforceOptions, pruneForRoom, pruneTo, removeUnnamed } from '../storage.ts'
import { Slice } from '../system/slice.ts'
import { formatBytes } from '../text.ts'
import { judgeCandidate } from './accept.ts'
import { assertSameFolder } from './job.ts'
import { type Amounts, FILE_SLACK_BYTES } from './limit.ts'
import type { Budget } from './preflight.ts'
import { bringModels, takeBack, usesScratch } from './scratch.ts'
import { inodesGone, limitReached } from './space-failure.ts'
import type { Report } from './train.ts'

/** So long a training may stand above its limit while its models are judged. */
const MOST_JUDGING_MS = 500

/** A quarter of what a reader of the journal takes for a line. */
const MOST_DATA_BYTES = 16 * 1024

/**
 * Conclude a training that exited with 0: check its models, measure and prune down to the limit around them, publish them if
 * they are accepted.
 *
 * @throws {TrainerError} `quota-exceeded` if they do not fit, `training-failed` if none is valid, `not-accepted`, `locked`
 * if another run has the lock by now; the published models stay as they are then
 */
export async function postflight(job: Job, budget: Budget, report: Report): Promise<void> {
  const { limitBytes, folderId, rules, stayed } = budget
  const { name, quota, jobDir: dir, workDir, emit, onPrune, onFault, run } = job
  run.signal.throwIfAborted()
  const stateDir = stateDirOf(run.modelsDir)
  assertOwnLock(stateDir)
  assertSameFolder(job, folderId)
  const { valid, rejected } = await judgeModels(job, budget)
  const files = filesOf(valid)
  const keep = [...rules.keep, ...files]
  const pruning = { ...rules, keep, onPrune, onFault, signal: run.signal }
  await pruneTo(dir, limitBytes, { ...pruning, removesExcess: true })
  if (budget.isCapped && files.size) await assertRoom(budget, roomFor(files.size), pruning)
  const { usedBytes, freeBytes } = await lookAt(dir)
  emit({ event: 'storage.usage', job: name, phase: 'postflight', usedBytes, limitBytes, freeBytes })

  const reasons = tellRejected(rejected)
  if (!valid.length) {
    const named = await findModels(workDir, quota.models, undefined, run.signal)
    for (const { path } of named.valid.slice(0, MOST_TOLD))
      reasons.push(
        `${path} is named by prune, and so is a checkpoint and no model; give the model another name, or name less in prune`,
      )
    throw report.ranOut ?? noModel(name, workDir, quota.models, reasons)
  }
  for (const reason of reasons) emit({ event: 'warning', job: name, message: `not published: ${reason}` })
  const { reported, warning } = readReported(workDir)
  if (warning) emit({ event: 'warning', job: name, message: warning })
  const slice = new Slice()
  for (const path of files) {
    await slice.giveWay(run.signal)
    takeFiles([path])
  }
  const facts = { globs: quota.models, trainedAt: new Date(), seconds: report.seconds, reported }
  const brought = await bringModels(job, valid)
  const { keepGenerations } = quota
  const options = {
    keepGenerations,
    stayed,
    signal: run.signal,
    makeRoom: usesScratch(job) ? undefined : (bytes: number) => makeRoom(job, budget, bytes, pruning),
    accept: async (staged: Staged, current: Generation | undefined) => {
      await judgeCandidate(job, budget, staged, current)
      assertOwnLock(stateDir)
      if (budget.isCapped) await clearForRoom(budget, roomFor(files.size), withNext(dir, pruning))
    },
    warn: (message: string) => emit({ event: 'warning', job: name, message }),
  }
  const published = await publish(job.publishedDir, name, brought, facts, options).catch(async error => {
    await takeBack(job, brought)
    throw error
  })
  for (const { generation, data, ...model } of published) {
    const told = { ...model, ...tellOf(data), ...(generation !== undefined && { generation }) }
    emit({ event: 'model.publish', job: name, ...told })
  }
}

/**
 * Judge what a training has left before anything is pruned: only then it is known which files its models consist of. Where that
 * takes long the training must not stand above its limit meanwhile, so the oldest checkpoints go: no model is one, and the data of
 * a model is as new as that is, and goes last.
 *
 * @throws {TrainerError} `quota-exceeded` if it is above its limit then all the same
 */
async function judgeModels(
  { workDir, jobDir, quota, run, onPrune, onFault }: Job,
  budget: Budget,
): Promise<Findings> {
  const { limitBytes, rules } = budget
  const over = new AbortController()
  const signal = AbortSignal.any([run.signal, over.signal])
  const judging = findModels(workDir, quota.models, await checkpointTest(quota.globs), signal)
  try {
    const found = await Promise.race([judging, delay(MOST_JUDGING_MS, undefined, { ref: false })])
    if (found) return found
    await pruneTo(jobDir, limitBytes, { ...rules, onPrune, onFault, signal, removesExcess: true })
    return await judging
  } finally {
    over.abort()
    await judging.catch(() => {})
  }
}

/** What is made on a filesystem to publish so many files, beside them: a folder, the manifest, links. */
function roomFor(files: number): Amounts {
  return { bytes: FILE_SLACK_BYTES + 1024 * files, inodes: 16 + files }
}

/**
 * Make room on a volume, which its training may have filled to the last byte or inode, for what is written to publish.
 *
 * @throws {TrainerError} `quota-exceeded` if there is not enough
 */
async function assertRoom(budget: Budget, room: Amounts, pruning: EnforceOptions): Promise<void> {
  const { dir } = budget
  if (await pruneForRoom(dir, room, pruning)) return
  const figures = accountOf(dir)
  const how = 'left no room to publish its model'
  if (figures.freeInodes < room.inodes) throw inodesGone(budget, figures, how)
  throw limitReached(budget, figures, how, await describeRest(dir, pruning, { faults: [] }))
}

/** The rules of pruning once some of the models are in the next generation. */
function withNext(jobDir: string, pruning: EnforceOptions): EnforceOptions {
  return { ...pruning, keep: [...(pruning.keep ?? []), nextGenerationDir(jobDir)] }
}

/** Make room on a volume that `accept`'s command may have filled: nothing that it leaves in `work/` is needed. */
async function clearForRoom(budget: Budget, room: Amounts, pruning: EnforceOptions): Promise<void> {
  if (await pruneForRoom(budget.dir, room, pruning)) return
  await removeUnnamed(budget.dir, { usedBytes: 0, limitBytes: 0 }, pruning)
  await assertRoom(budget, room, pruning)
}

/**
 * Make room for a model that is written anew beside itself.
 *
 * @throws {TrainerError} `quota-exceeded` if there is not enough
 */
async function makeRoom(
  { name, jobDir }: Job,
  budget: Budget,
  bytes: number,
  pruning: EnforceOptions,
): Promise<void> {
  const { limitBytes, isCapped } = budget
  try {
    const rules = withNext(jobDir, pruning)
    await pruneTo(jobDir, Math.max(0, limitBytes - bytes), rules)
    const room = roomFor(1)
    if (isCapped) await assertRoom(budget, { ...room, bytes: room.bytes + bytes }, rules)
  } catch (error) {
    if (!(error instanceof TrainerError && error.code === 'quota-exceeded')) throw error
    const usedBytes = bytes + (error.usage?.usedBytes ?? 0)
    throw new TrainerError(
      'quota-exceeded',
      `Model too large for quota: ${name}'s model is to be written anew beside itself, because its external data has the name ` +
        `of last time: that takes ${formatBytes(usedBytes)} of ${formatBytes(limitBytes)} in ${jobDir}; ` +
        'raise its maxDiskMb, or let the training give the data another name each time',
      { cause: error, usage: { usedBytes, limitBytes } },
    )
  }
}

/** Name a model's external data as far as a line has room for them, and count the rest: the manifest has them all. */
function tellOf(data: Published['data']): { data: Published['data']; moreData?: number } {
  const named: Published['data'] = []
  let bytes = 0
  for (const it of data) {
    bytes += Buffer.byteLength(JSON.stringify(it))
    if (bytes > MOST_DATA_BYTES) return { data: named, moreData: data.length - named.length }
    named.push(it)
  }
  return { data }
}

function noModel(job: string, workDir: string, globs: string[], reasons: string[]): TrainerError {
  const what = reasons.length ? reasons.join('; ') : `nothing in ${workDir} matches ${globs.join(', ')}`
  return new TrainerError(
    'training-failed',
    `${job}'s training exited with 0 but left no valid model: ${what}`,
    { sparesCheckpoint: true },
  )
}
