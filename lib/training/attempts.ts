import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as v from 'valibot'
import { isErrno, messageOf } from '../errors.ts'
import { ASIDE, stateDirOf } from '../layout.ts'
import { MANIFEST } from '../models/manifest.ts'
import { usualCheckpoints } from '../quotas.ts'
import type { Job } from '../run.ts'
import { removeWhole } from '../storage/empty-folder.ts'
import type { PrunableSet } from '../storage/entry.ts'
import { findWork, type Measurement, measure } from '../storage/measure.ts'
import { isBestName } from '../storage/naming.ts'
import { pathOf, repoint } from '../storage/pointers.ts'
import { type Pruned, pruneOldest } from '../storage/prune.ts'
import { RANK } from '../storage/rank.ts'
import { type Bytes, escapeBytes, native } from '../system/bytes.ts'
import { replaceFile, syncFolder } from '../system/durable.ts'
import { count, formatBytes } from '../text.ts'

// A training goes on from its newest checkpoint. That is wrong in two cases: when the training that wrote it has been
// published, and when it is the checkpoint itself that every start fails on.

/** After so many starts in a row that failed and left no new checkpoint, the newest one is taken for the reason. */
const MOST_FAILURES = 2

const attemptsSchema = v.object({
  /** The content of the manifest when the training began for the first time; it is another one once it is published. */
  base: v.string(),
  isPublished: v.boolean(),
  /** Starts in a row that failed with the same newest checkpoint. */
  failures: v.number(),
  newest: v.nullable(v.string()),
})
type Attempts = v.InferOutput<typeof attemptsSchema>

/**
 * Make the output folder ready to be resumed from: without the checkpoints of a training that has been published, unless
 * the job says `"resume": "always"`, and without one that starts fail on.
 */
export async function beginAttempt(job: Job): Promise<void> {
  const base = baseOf(job)
  const last = readAttempts(job)
  const isFinished = last !== undefined && hasBeenPublished(last, base)
  if (isFinished && job.quota.resume !== 'always') await removeFinished(job)
  else if (last && last.failures >= MOST_FAILURES) await setAside(job, last)
  else if (last && !isFinished) return
  await writeAttempts(job, { base, isPublished: false, failures: 0, newest: null })
}

/** Does the next training go on with one that was not published? */
export function isUnpublished(job: Job): boolean {
  const last = readAttempts(job)
  return last !== undefined && !hasBeenPublished(last, baseOf(job))
}

function hasBeenPublished({ isPublished, base }: Attempts, now: string): boolean {
  return isPublished || base !== now
}

/** Note that the training has been published. */
export async function noteSuccess(job: Job): Promise<void> {
  await removeWhole(join(job.jobDir, ASIDE))
  await writeAttempts(job, { base: baseOf(job), isPublished: true, failures: 0, newest: null })
}

/** Note that a start has failed. */
export async function noteFailure(job: Job): Promise<void> {
  const last = readAttempts(job)
  if (!last) return
  const [set] = await newestOf(job)
  const newest = set ? identityOf(set) : null
  const failures = newest !== null && newest === last.newest ? last.failures + 1 : 1
  await writeAttempts(job, { ...last, failures, newest })
}

async function removeFinished(job: Job): Promise<void> {
  const { jobDir, name, run, emit, onPrune, onFault } = job
  let found = await measureCheckpoints(job, 'oldest')
  if (!found.prunable.length) return
  const { pointers } = found
  const sets = new Set(found.prunable.map(({ set }) => set)).size
  const message =
    `its last training has been published: ${found.isCut ? 'more than ' : ''}${count(sets, 'checkpoint')} of it go, ` +
    'so that this one begins anew; "resume": "always" in quotas.json keeps them'
  emit({ event: 'warning', job: name, message })
  const all = { targetBytes: 0, targetInodes: 0, signal: run.signal }
  const listener = {
    onPrune: ({ pointer: _, ...pruned }: Pruned) => onPrune(pruned), // what names it goes too
    onFault,
  }
  // They name what is gone then. A link may be anything else.
  const naming = new Set(pointers.filter(({ isLink }) => !isLink).map(pathOf))
  // Where there are very many, they are listed and deleted in parts.
  for (;;) {
    for (const { set } of found.prunable) for (const pointer of set.namedBy) naming.add(pathOf(pointer))
    const { freedInodes } = await pruneOldest(jobDir, found.prunable, { ...found, ...all, ...listener })
    if (!found.isCut || !freedInodes) break
    found = await measureCheckpoints(job, 'oldest')
  }
  for (const path of naming) rmSync(native(path), { force: true })
}

async function setAside(job: Job, { newest, failures }: Attempts): Promise<void> {
  const { jobDir, name, emit } = job
  const [set, before] = await newestOf(job)
  if (!set || identityOf(set) !== newest) return
  const aside = join(jobDir, ASIDE)
  mkdirSync(aside, { recursive: true, mode: 0o750 })
  for (const { folder, name: file } of set.entries) {
    const parts = folder.slice(findWork(jobDir).length + 1).split('/')
    const target = native(`${latin1(aside)}/${[...parts, file].filter(Boolean).join('-')}`)
    rmSync(target, { recursive: true, force: true })
    renameSync(native(`${folder}/${file}`), target)
  }
  await syncFolder(aside)
  for (const pointer of set.namedBy) repoint(pointer, set, before)
  const message =
    `its training failed ${failures} times in a row without a new checkpoint: its newest one, ${escapeBytes(set.path)} ` +
    `(${formatBytes(set.bytes)}), is set aside in ${aside}, so that it resumes from the one before, or anew`
  emit({ event: 'warning', job: name, message })
}

/** Measure a job's checkpoints alone, those that `keep` names too. */
async function measureCheckpoints({ jobDir, quota }: Job, which: 'oldest' | 'newest'): Promise<Measurement> {
  const prune = [...quota.globs.prune, ...(quota.framework ? [] : usualCheckpoints)]
  const found = await measure(jobDir, { prune, which })
  const work = findWork(jobDir)
  const prunable = found.prunable.filter(
    ({ rank, folder }) => rank === RANK.checkpoint && `${folder}/`.startsWith(`${work}/`),
  )
  return { ...found, prunable }
}

function latin1(path: string): Bytes {
  return Buffer.from(path).toString('latin1')
}

/** The newest checkpoint, the best only if there is no other, and the one before it that has the same pattern of a name. */
async function newestOf(job: Job): Promise<PrunableSet[]> {
  const { prunable } = await measureCheckpoints(job, 'newest')
  const sets = [...new Set(prunable.map(({ set }) => set))].sort((a, b) => (a.orderNs < b.orderNs ? 1 : -1))
  const isBest = ({ path }: PrunableSet) => isBestName(basename(path))
  const [newest, ...others] = [...sets.filter(it => !isBest(it)), ...sets.filter(isBest)]
  if (!newest) return []
  const before = others.find(({ place }) => place && place.pattern === newest.place?.pattern)
  return before ? [newest, before] : [newest]
}

/** One with a number is the same until there is another, whatever a start that fails writes into it. */
function identityOf({ path, bytes, timeNs, place }: PrunableSet): string {
  const name = basename(escapeBytes(path))
  return place ? name : `${name} ${bytes} ${timeNs}`
}

/** What is published, as one word. */
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
