import { statSync } from 'node:fs'
import { join } from 'node:path'
import { type ErrorCode, messageOf, TrainerError } from '../errors.ts'
import type { EventBody } from '../events.ts'
import type { JobName, Quota } from '../quotas.ts'
import type { Run } from '../run.ts'
import type { Pruned } from '../storage.ts'
import { inodeId } from '../system/plain-file.ts'

/** One job of a run: what its three phases share. */
export type Job = {
  name: JobName
  quota: Quota
  /** Everything in here is charged to the quota. */
  dir: string
  /** The training's output folder. */
  workDir: string
  run: Run
  emit: (event: EventBody) => void
  onPrune: (pruned: Pruned) => void
}

/** Which folder is the job's, if there is one: another may take its name while the training runs. */
export function folderIdOf({ dir }: Job): string | undefined {
  const stats = statSync(dir, { throwIfNoEntry: false })
  return stats && inodeId(stats)
}

/**
 * Is the job's folder still the one that its training was started in?
 *
 * @throws {TrainerError} `storage` if not: what is there is not ours to touch
 */
export function assertSameFolder(job: Job, folderId: string | undefined): void {
  const found = folderIdOf(job)
  if (found === folderId) return
  const fate = found === undefined ? 'moved or deleted' : 'replaced by another folder'
  const message = `${job.dir} was ${fate} during the training; put it back and start again`
  throw new TrainerError('storage', message)
}

/** What the steps of one job of a run share. */
export function openJob(name: JobName, run: Run): Job {
  const quota = { ...run.quotas.jobs[name] }
  if (run.command.maxDiskMb !== undefined) quota.maxDiskMb = run.command.maxDiskMb
  const dir = join(run.modelsDir, name)
  const emit = (event: EventBody) => run.journal.emit(event)
  const dryRun = run.command.dryRun ? { dryRun: true } : {}
  return {
    name,
    quota,
    dir,
    workDir: join(dir, 'work'),
    run,
    emit,
    onPrune: pruned => emit({ event: 'storage.prune', job: name, ...pruned, ...dryRun }),
  }
}

/** Say why a job failed, as events. */
export function announce({ name, emit }: Job, error: unknown): void {
  const message = messageOf(error)
  if (error instanceof TrainerError && error.code === 'quota-exceeded' && error.usage) {
    emit({ event: 'quota.exceeded', job: name, ...error.usage, message })
  }
  emit({ event: 'job.fail', job: name, code: codeOf(error), message })
}

function codeOf(error: unknown): ErrorCode | 'internal' {
  return error instanceof TrainerError ? error.code : 'internal'
}
