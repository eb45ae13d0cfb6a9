import type { TrainerEvent } from '../events.ts'
import type { JobName } from '../quotas.ts'
import type { JobRecord } from '../run/job-record.ts'
import { JournalTail } from '../run/journal-tail.ts'
import { stateDirOf } from '../settings/layout.ts'
import { logOf } from './batch-script.ts'
import type { SiteState } from './fleet-events.ts'
import type { Site } from './fleet-file.ts'
import type { Evidence, Outcome } from './outcome.ts'
import type { SlurmJob } from './slurm.ts'

/** A site whose job is in Slurm's hands, and what is known of it. */
export class FollowedSite {
  readonly site: Site
  readonly jobId: number
  state: SiteState = 'waiting'
  /** The node that it runs on. */
  host = ''
  /** Why it waits. */
  reason = ''
  /** The job of its run that trains now, and its usage. */
  training: { job: JobName; usedBytes: number; limitBytes: number } | undefined
  outcome: Outcome | undefined
  /** Has its job left the queue, as far as it is known? A job that is held has not. */
  isGone = false
  /** The end of its run and its time, once they are in the journal. */
  done: Outcome | undefined
  doneAt: string | undefined
  /** How its job came out, if somebody has seen its end before. */
  readonly kept: JobRecord['outcome']
  /** Since when its end lacks its reason, in milliseconds. */
  endSeenMs: number | undefined
  /** Slurm's last word of its job once that has ended; undefined if Slurm has forgotten it. */
  ended: SlurmJob | undefined
  readonly submittedAt: string
  /** The begin of its run, or what the journal has left of that, once it is there. */
  begunAt: string | undefined
  readonly #tail: JournalTail
  #run: string | undefined

  constructor(site: Site, { jobId, submittedAt, journal, outcome }: JobRecord) {
    this.site = site
    this.jobId = jobId
    this.submittedAt = submittedAt
    this.kept = outcome?.slurmJob === jobId && !outcome.isQueued ? outcome : undefined
    this.#tail = new JournalTail(stateDirOf(site.modelsDir), { ...journal })
  }

  /** Take what its own run has written down since the last call. */
  readJournal(): TrainerEvent[] {
    return this.#tail.read().filter(event => this.#take(event))
  }

  /** How long it took from its submission to the end of its run, or to now. */
  secondsSinceSubmission(): number {
    const endMs = this.doneAt === undefined ? Date.now() : Date.parse(this.doneAt)
    return Math.max(0, endMs - Date.parse(this.submittedAt)) / 1000
  }

  evidence(timeMinutes: number | undefined): Evidence {
    const hasBegun = this.#run !== undefined
    return { jobId: this.jobId, done: this.done, hasBegun, log: logOf(this.site), timeMinutes }
  }

  /** @returns false for an event of another run, such as one that somebody starts by hand */
  #take(event: TrainerEvent): boolean {
    const isPlaced = event.event === 'run.start' || event.event === 'run.done'
    if (isPlaced && event.slurmJob === this.jobId && event.run !== this.#run) {
      this.#run = event.run
      this.host = event.host ?? this.host
      this.begunAt = event.time
    }
    if (event.run !== this.#run) return false
    switch (event.event) {
      case 'job.start':
        this.training = { job: event.job, usedBytes: 0, limitBytes: event.limitBytes }
        break
      case 'storage.usage':
        if (this.training)
          Object.assign(this.training, { usedBytes: event.usedBytes, limitBytes: event.limitBytes })
        break
      case 'job.done':
      case 'job.fail':
        this.training = undefined
        break
      case 'run.done':
        this.done = { exitCode: event.exitCode, message: event.message }
        this.doneAt = event.time
    }
    return true
  }
}

/** How many sites wait for each of Slurm's reasons. */
export function countReasons(sites: FollowedSite[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { state, reason } of sites)
    if (state === 'waiting' && reason) counts[reason] = (counts[reason] ?? 0) + 1
  return counts
}
