import { messageOf, TrainerError } from '../errors.ts'
import { type JobRecord, keepOutcome, readRecord, writeRecord } from '../run/job-record.ts'
import { endOfJournal } from '../run/journal-tail.ts'
import { stateDirOf } from '../settings/layout.ts'
import { readQuotas } from '../settings/quotas-file.ts'
import { isAnothersFolder } from '../system/owner.ts'
import { makeFolder } from '../system/plain-file.ts'
import { quoteWord } from '../text.ts'
import { batchOptions, batchScript, jobNameOf } from './batch-script.ts'
import type { Fleet, Site } from './fleet-file.ts'
import type { Outcome } from './outcome.ts'
import { hasEnded } from './outcome.ts'
import { cancelJobs, isNamed, listJobs, NoAnswer, type SlurmJob, submit } from './slurm.ts'

/** So many submissions wait for Slurm and for the disk at a time. */
const AT_A_TIME = 4

/** The outcome of submitting a site. */
export type Submission = { site: Site } & ({ record: JobRecord } | { refusal: Outcome })

/**
 * Submit a job for each site. What keeps one site from it keeps no other.
 *
 * @param onSubmitted called with each, in any order, once its job's id is on the disk
 * @throws {TrainerError} `unavailable` if Slurm does not answer, before anything is submitted
 */
export async function submitSites(
  fleet: Fleet,
  retrain: boolean,
  signal: AbortSignal,
  onSubmitted: (submission: Submission) => void,
): Promise<Submission[]> {
  const queued = await findQueued(fleet.sites)
  const submissions = new Map<Site, Submission>()
  const rest = fleet.sites.values()
  await Promise.all(
    Array.from({ length: AT_A_TIME }, async () => {
      for (const site of rest) {
        if (signal.aborted) return
        const submission = await submitSite(fleet, site, retrain, queued.get(site))
        submissions.set(site, submission)
        onSubmitted(submission)
      }
    }),
  )
  return fleet.sites.flatMap(site => submissions.get(site) ?? [])
}

/**
 * The sites whose last job is still in Slurm's queue, with that job.
 *
 * @throws {TrainerError} `unavailable` if Slurm does not answer
 */
async function findQueued(sites: Site[]): Promise<Map<Site, SlurmJob>> {
  const recorded = sites.flatMap(site => {
    const record = readRecord(site)
    return record ? [{ site, id: record.jobId }] : []
  })
  if (!recorded.length) return new Map()
  try {
    const jobs = await listJobs(recorded.map(({ id }) => id))
    return new Map(
      recorded.flatMap(({ site, id }) => {
        const job = jobs.get(id)
        return job && isNamed(job, jobNameOf(site)) && !hasEnded(job) ? [[site, job]] : []
      }),
    )
  } catch (cause) {
    if (!(cause instanceof NoAnswer)) throw cause
    const message = `Slurm's controller does not answer (${messageOf(cause)}); nothing was submitted, try again`
    throw new TrainerError('unavailable', message, { cause })
  }
}

async function submitSite(
  fleet: Fleet,
  site: Site,
  retrain: boolean,
  queued: SlurmJob | undefined,
): Promise<Submission> {
  try {
    if (queued) {
      const message = `its job ${queued.id} is still in the queue (${queued.state}); follow it by --attach, or end it by --cancel`
      throw new TrainerError('locked', message)
    }
    const options = batchOptions(fleet, site, readQuotas(site.quotasFile))
    const stateDir = stateDirOf(site.modelsDir)
    if (isAnothersFolder(site.modelsDir)) {
      throw new TrainerError(
        'usage',
        `root cannot train in ${site.modelsDir}, which is another user's: submit it as that user`,
      )
    }
    makeFolder(stateDir)
    const journal = endOfJournal(stateDir)
    const jobId = await submit(batchScript(fleet, site, retrain), options).catch(async error => {
      // Whoever looks at the site later finds it; that it is not kept is not worth more words than itself.
      await keepOutcome(site, refusalOf(site, error)).catch(() => {})
      throw error
    })
    const record = { jobId, submittedAt: new Date().toISOString(), journal }
    // A job that nobody would find again must not stay.
    await writeRecord(site, record).catch(async error => {
      await cancelJobs([jobId])
      throw error
    })
    return { site, record }
  } catch (error) {
    return { site, refusal: refusalOf(site, error) }
  }
}

function refusalOf(site: Site, error: unknown): Outcome {
  if (error instanceof NoAnswer) {
    const command = `squeue --name=${quoteWord(jobNameOf(site))}`
    const message = `Slurm gave no answer (${error.message}) and may have taken its job or not; look at ${command}`
    return { exitCode: 75, message }
  }
  if (error instanceof TrainerError)
    return { exitCode: error.exitCode, message: error.message.replaceAll('\n', '; ') }
  throw error
}

/**
 * Ask Slurm whether it would take each site's job; nothing is submitted.
 *
 * @returns a refusal, or the script that would be submitted, for each site
 */
export async function trySites(
  fleet: Fleet,
  retrain: boolean,
): Promise<({ site: Site } & ({ script: string; options: string[] } | { refusal: Outcome }))[]> {
  const tried = []
  for (const site of fleet.sites) {
    try {
      const options = batchOptions(fleet, site, readQuotas(site.quotasFile))
      const script = batchScript(fleet, site, retrain)
      await submit(script, [...options, '--test-only'])
      tried.push({ site, script, options })
    } catch (error) {
      tried.push({ site, refusal: refusalOf(site, error) })
    }
  }
  return tried
}
