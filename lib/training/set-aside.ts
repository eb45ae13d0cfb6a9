import { mkdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Job } from '../run.ts'
import { ASIDE } from '../settings/layout.ts'
import type { PrunableSet } from '../storage/entry.ts'
import { findWork } from '../storage/measure.ts'
import { repoint } from '../storage/pointers.ts'
import { type Bytes, escapeBytes, native } from '../system/bytes.ts'
import { storageError, syncFolder } from '../system/durable.ts'
import { formatBytes } from '../text.ts'
import { identityOf, newestOf } from './job-checkpoints.ts'

/** Set the newest checkpoint aside, if it is still the one that so many starts in a row failed on; a dry run tells of it. */
export async function setAside(job: Job, newest: string | null, failures: number): Promise<void> {
  const { jobDir, name, run, emit } = job
  const { dryRun } = run.command
  const [set, before] = await newestOf(job)
  if (!set || identityOf(set) !== newest) return
  const aside = join(jobDir, ASIDE)
  const message =
    `its training failed ${failures} times in a row without a new checkpoint: its newest one, ${escapeBytes(set.shownPath)} ` +
    `(${formatBytes(set.bytes)}), ${dryRun ? 'would be' : 'is'} set aside in ${aside}, so that it resumes from the one before, or anew; ` +
    'if its error is about another file that it loads, such as a best checkpoint, remove that one'
  if (!dryRun) {
    try {
      await moveTo(aside, set, findWork(jobDir))
      for (const pointer of set.namedBy) repoint(pointer, set, before)
    } catch (cause) {
      throw storageError(`Cannot set ${escapeBytes(set.shownPath)} aside in ${aside}`, cause)
    }
  }
  emit({ event: 'warning', job: name, message })
}

async function moveTo(aside: string, set: PrunableSet, work: Bytes): Promise<void> {
  mkdirSync(aside, { recursive: true, mode: 0o750 })
  for (const { folder, name } of set.entries) {
    const parts = folder.slice(work.length + 1).split('/')
    const target = native(`${latin1(aside)}/${[...parts, name].filter(Boolean).join('-')}`)
    rmSync(target, { recursive: true, force: true })
    renameSync(native(`${folder}/${name}`), target)
  }
  await syncFolder(aside)
}

function latin1(path: string): Bytes {
  return Buffer.from(path).toString('latin1')
}
