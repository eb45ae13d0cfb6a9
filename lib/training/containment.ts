import type { Job } from '../run.ts'
import { FILE_SLACK_BYTES } from './limit.ts'
import type { Budget } from './preflight.ts'
import type { Containment } from './sandbox.ts'

/**
 * What bounds a program of the job's own, its training or the command that accepts: the folders that it may write to, and
 * the size of one file.
 *
 * @param path where programs are looked for
 */
export function containmentOf(
  { jobDir, publishedDir, run }: Job,
  { isSandboxed, isCapped, limitBytes, keptBytes }: Budget,
  path: string,
  network: Containment['network'],
): Containment {
  const maxFileBytes = Math.max(limitBytes - keptBytes - FILE_SLACK_BYTES, FILE_SLACK_BYTES)
  const workingDir = run.quotas.dir
  return { jobDir, publishedDir, workingDir, isSandboxed, isCapped, network, maxFileBytes, path }
}
