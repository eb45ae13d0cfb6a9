import type { Job } from '../run.ts'
import { FILE_SLACK_BYTES } from './limit.ts'
import type { Budget } from './preflight.ts'
import type { Containment } from './sandbox.ts'

/**
 * The bounds of a program of the job's own, its training or the command that accepts: the folders that it may write to, and
 * the size of one file.
 *
 * @param path where programs are looked for
 */
export function containmentOf(
  { jobDir, publishedDir, run }: Job,
  budget: Budget,
  path: string,
  network: Containment['network'],
): Containment {
  const { isSandboxed, isCapped } = budget
  const maxFileBytes = maxFileBytesOf(budget)
  const workingDir = run.quotas.dir
  return { jobDir, publishedDir, workingDir, isSandboxed, isCapped, network, maxFileBytes, path }
}

/** The size that no file of a training grows beyond: what fits beside that which stays. */
export function maxFileBytesOf({ limitBytes, keptBytes }: Pick<Budget, 'limitBytes' | 'keptBytes'>): number {
  return Math.max(limitBytes - keptBytes - FILE_SLACK_BYTES, FILE_SLACK_BYTES)
}
