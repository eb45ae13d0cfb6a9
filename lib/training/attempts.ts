import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { isErrno, messageOf } from '../errors.ts'
import { MANIFEST } from '../models/manifest.ts'
import type { Job } from '../run.ts'
import { ASIDE, stateDirOf } from '../settings/layout.ts'
import { removeWhole } from '../storage/empty-folder.ts'
import { replaceFile } from '../system/durable.ts'
import { namesOfStayed, removeFinished } from './finished.ts'
import { identityOf, newestOf } from './job-checkpoints.ts'
import { setAside } from './set-aside.ts'

// A training goes on from its newest checkpoint. That is wrong in two cases: when the training that wrote it has been
// published, and when it is the checkpoint itself that every start fails on.

/** After so many starts in a row that failed and left no new checkpoint, the newest one is taken for the reason. */
const MOST_FAILURES = 2

const attemptsSchema = v.object({
  /** The content of the manifest when the training began for the first time; it is another one once it is published. */
  base: v.string(),
  /** It came to its end, and its model was published or refused. */
  isPublished: v.boolean(),
  isRefused: v.optional(v.boolean(), false),
  /** Starts in a row that failed with the same newest checkpoint. */
  failures: v.number(),
  newest: v.nullable(v.string()),
  /** The best checkpoint that it lost to its quota, if it has lost one. */
  lostBest: v.optional(v.nullable(v.string()), null),
})
type Attempts = v.InferOutput<typeof attemptsSchema>

/**
 * Make the output folder ready to be resumed from: without the checkpoints of a training that has been published, unless
 * the job says `"resume": "always"`, and without one that starts fail on. A dry run tells what it would do.
 *
 * @returns where it begins anew, the names of files that stayed all the same and may be checkpoints
 */
export async function beginAttempt(job: Job): Promise<string[]> {
  const { dryRun } = job.run.command
  const base = baseOf(job)
  const last = readAttempts(job)
  const isFinished = last !== undefined && hasBeenPublished(last, base)
  const beginsAnew = isFinished && job.quota.resume !== 'always'
  if (beginsAnew) await removeFinished(job, last.isRefused)
  const isSetAside = !isFinished && last !== undefined && last.failures >= MOST_FAILURES
  if (isSetAside) await setAside(job, last.newest, last.failures)
  if (dryRun) return []
  startedFrom.set(job, await newestIdentity(job))
  if (last && !isFinished && !isSetAside) return []
  const lostBest = isFinished ? null : (last?.lostBest ?? null)
  await writeAttempts(job, {
    base,
    isPublished: false,
    isRefused: false,
    failures: 0,
    newest: null,
    lostBest,
  })
  return beginsAnew ? namesOfStayed(job) : []
}

/** Does the next training go on with one that was not published? */
export function isUnpublished(job: Job): boolean {
  const last = readAttempts(job)
  return last !== undefined && !hasBeenPublished(last, baseOf(job))
}

function hasBeenPublished({ isPublished, base }: Attempts, now: string): boolean {
  return isPublished || base !== now
}

/** Note that the training has come to its end, and that its model was published, or refused. */
export async function noteSuccess(job: Job, isRefused: boolean): Promise<void> {
  await removeWhole(join(job.jobDir, ASIDE))
  await writeAttempts(job, {
    base: baseOf(job),
    isPublished: true,
    isRefused,
    failures: 0,
    newest: null,
    lostBest: null,
  })
}

/** Note that a start has failed. */
export async function noteFailure(job: Job): Promise<void> {
  const last = readAttempts(job)
  if (!last) return
  const newest = await newestIdentity(job)
  const isStuck = newest !== null && newest === startedFrom.get(job)
  const before = newest === last.newest ? last.failures : 0
  const failures = isStuck ? before + 1 : 0
  await writeAttempts(job, { ...last, failures, newest })
}

/** Note which best checkpoint this start has lost to the quota, for the start that publishes. */
export async function noteLostBest(job: Job): Promise<void> {
  const lostBest = job.pruned.findLast(({ isBest }) => isBest)?.path
  const last = readAttempts(job)
  if (last && lostBest !== undefined) await writeAttempts(job, { ...last, lostBest })
}

/** Warn of a publication by a training that lost its best checkpoint to the quota in an earlier start. */
export function tellOfLostBest(job: Job): void {
  const lostBest = readAttempts(job)?.lostBest
  if (!lostBest) return
  const message =
    `the quota cost the training that is published now its best checkpoint of that time, ${lostBest}, in an earlier start; ` +
    'see that its model is the one that was meant'
  job.emit({ event: 'warning', job: job.name, message })
}

/** The newest checkpoint that each job of this run has started from. */
const startedFrom = new WeakMap<Job, string | null>()

async function newestIdentity(job: Job): Promise<string | null> {
  const [set] = await newestOf(job)
  return set ? identityOf(set) : null
}

/** The published files, as one word. */
function baseOf({ publishedDir }: Job): string {
  try {
    return createHash('sha256')
      .update(readFileSync(join(publishedDir, MANIFEST)))
      .digest('hex')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return 'nothing'
    return messageOf(error)
  }
}

function fileOf({ run, name }: Job): string {
  return join(stateDirOf(run.modelsDir), `${name}.attempts.json`)
}

function readAttempts(job: Job): Attempts | undefined {
  try {
    return v.parse(attemptsSchema, JSON.parse(readFileSync(fileOf(job), 'utf8')))
  } catch {
    return undefined // never written, or not as a whole: nothing is known then
  }
}

async function writeAttempts(job: Job, attempts: Attempts): Promise<void> {
  await replaceFile(fileOf(job), `${JSON.stringify(attempts)}\n`)
}
