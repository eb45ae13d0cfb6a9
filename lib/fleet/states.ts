import { messageOf } from '../errors.ts'
import { jobNameOf } from './batch-script.ts'
import type { Site } from './fleet-file.ts'
import { readRecord } from './job-record.ts'
import { hasEnded, obstacleOf } from './outcome.ts'
import { isNamed, listJobs, NoAnswer, type SlurmJob } from './slurm.ts'

/** The state of a site's last job in Slurm. */
export type SiteInSlurm = {
  jobId: number | undefined
  /** `gone` if it has ended, `unknown` if Slurm does not answer, `none` if none was ever submitted. */
  state: 'waiting' | 'running' | 'held' | 'gone' | 'unknown' | 'none'
  node: string | undefined
  reason: string | undefined
}

/**
 * Ask Slurm once for the last jobs of all sites.
 *
 * @returns what it has, by the site's name, and why it did not answer, if so
 * @throws {TrainerError} `config` if there is no Slurm here
 */
export async function readSlurmStates(
  sites: Site[],
): Promise<{ states: Map<string, SiteInSlurm>; fault: string | undefined }> {
  const ids = new Map(sites.map(site => [site.name, readRecord(site)?.jobId]))
  const asked = [...ids.values()].filter(id => id !== undefined)
  let jobs = new Map<number, SlurmJob>()
  let fault: string | undefined
  try {
    if (asked.length) jobs = await listJobs(asked)
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw error
    fault = messageOf(error)
  }
  const stateOf = (site: Site): SiteInSlurm => {
    const jobId = ids.get(site.name)
    const nothing = { jobId, node: undefined, reason: undefined }
    if (jobId === undefined) return { ...nothing, state: 'none' }
    if (fault !== undefined) return { ...nothing, state: 'unknown' }
    const job = jobs.get(jobId)
    if (!job || !isNamed(job, jobNameOf(site)) || hasEnded(job)) return { ...nothing, state: 'gone' }
    const isWaiting = job.state === 'PENDING' || job.state === 'CONFIGURING'
    const state = obstacleOf(job) ? 'held' : isWaiting ? 'waiting' : 'running'
    return {
      jobId,
      state,
      node: job.nodes || undefined,
      reason: job.reason === 'None' ? undefined : job.reason,
    }
  }
  return { states: new Map(sites.map(site => [site.name, stateOf(site)])), fault }
}
