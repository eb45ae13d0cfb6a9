import { messageOf } from '../errors.ts'
import { readRecord } from '../run/job-record.ts'
import { jobNameOf } from './batch-script.ts'
import type { Fleet, Site } from './fleet-file.ts'
import { FollowedSite } from './followed-site.ts'
import { hasEnded, judge, judgeGone, type Outcome, obstacleOf } from './outcome.ts'
import { describeReason, isNamed, listJobs, NoAnswer, type SlurmJob } from './slurm.ts'

/** The state of a site's last job in Slurm. */
export type SiteInSlurm = {
  jobId: number | undefined
  /** `gone` if it has ended, `unknown` if Slurm does not answer, `none` if none was ever submitted. */
  state: 'waiting' | 'running' | 'held' | 'gone' | 'unknown' | 'none'
  node: string | undefined
  reason: string | undefined
  /** How it came out, as far as can be told, where nobody who followed it has kept that; and since when. */
  outcome: (Outcome & { at: string }) | undefined
}

/** More looks than a journal of one run needs. */
const MAX_LOOKS = 8

/**
 * Ask Slurm once for the last jobs of all sites.
 *
 * @returns what it has, by the site's name, and why it did not answer, if so
 * @throws {TrainerError} `config` if there is no Slurm here
 */
export async function readSlurmStates({
  sites,
  slurm,
}: Fleet): Promise<{ states: Map<string, SiteInSlurm>; fault: string | undefined }> {
  const records = new Map(sites.map(site => [site.name, readRecord(site)]))
  const asked = [...records.values()].flatMap(record => record?.jobId ?? [])
  let jobs = new Map<number, SlurmJob>()
  let fault: string | undefined
  try {
    if (asked.length) jobs = await listJobs(asked)
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw error
    fault = messageOf(error)
  }
  const stateOf = (site: Site): SiteInSlurm => {
    const record = records.get(site.name)
    const jobId = record?.jobId
    const nothing = { jobId, node: undefined, reason: undefined, outcome: undefined }
    if (!record || jobId === undefined) return { ...nothing, state: 'none' }
    if (fault !== undefined) return { ...nothing, state: 'unknown' }
    const found = jobs.get(jobId)
    const job = found && isNamed(found, jobNameOf(site)) ? found : undefined
    if (!job || hasEnded(job)) {
      // A later submission that Slurm has refused is what there is to tell.
      const isRefused = record.outcome !== undefined && record.outcome.slurmJob === undefined
      const followed = new FollowedSite(site, record)
      const outcome = isRefused ? undefined : judgeUnfollowed(followed, job, slurm.timeMinutes)
      return { ...nothing, state: 'gone', outcome }
    }
    const isWaiting = job.state === 'PENDING' || job.state === 'CONFIGURING'
    const state = obstacleOf(job) ? 'held' : isWaiting ? 'waiting' : 'running'
    return {
      jobId,
      state,
      node: job.nodes || undefined,
      reason: job.reason === 'None' ? undefined : describeReason(job.reason),
      outcome: undefined,
    }
  }
  return { states: new Map(sites.map(site => [site.name, stateOf(site)])), fault }
}

/** How a job has come out that nobody has followed to its end. Of one that Slurm has forgotten any newer run tells more. */
function judgeUnfollowed(
  site: FollowedSite,
  job: SlurmJob | undefined,
  timeMinutes: number | undefined,
): SiteInSlurm['outcome'] {
  if (site.kept) return undefined
  for (let look = 0; look < MAX_LOOKS && !site.done; look++) site.readJournal()
  const evidence = site.evidence(timeMinutes)
  if (!job) return { ...judgeGone(evidence), at: site.submittedAt }
  return { ...judge(job, evidence), at: new Date().toISOString() }
}
