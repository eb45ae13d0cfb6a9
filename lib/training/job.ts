import { statSync } from 'node:fs'
import { type ErrorCode, messageOf, TrainerError } from '../errors.ts'
import type { Job } from '../run.ts'
import { inodeId } from '../system/plain-file.ts'

/** Identify the job's folder, if there is one: another may take its name while the training runs. */
export function folderIdOf({ jobDir }: Job): string | undefined {
  const stats = statSync(jobDir, { throwIfNoEntry: false })
  return stats && inodeId(stats)
}

/**
 * Assert that the job's folder is still the one that its training was started in.
 *
 * @throws {TrainerError} `storage` if not: another folder is not ours to touch
 */
export function assertSameFolder(job: Job, folderId: string | undefined): void {
  const found = folderIdOf(job)
  if (found === folderId) return
  const fate = found === undefined ? 'moved or deleted' : 'replaced by another folder'
  const message = `${job.jobDir} was ${fate} during the training; put it back and start again`
  throw new TrainerError('storage', message)
}

/** Emit the events that say why a job failed. */
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
