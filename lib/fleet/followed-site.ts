import type { TrainerEvent } from '../events.ts'
import { stateDirOf } from '../layout.ts'
import type { JobName } from '../quotas.ts'
import { JournalTail } from '../run/journal-tail.ts'
import { logOf } from './batch-script.ts'
import type { SiteState } from './fleet-events.ts'
import type { Site } from './fleet-file.ts'
import type { JobRecord } from './job-record.ts'
import type { Evidence, Outcome } from './outcome.ts'

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
  /** The end of its run, once it is in the journal. */
  done: Outcome | undefined
  /** Since when its end lacks its reason, in milliseconds. */
  endSeenMs: number | undefined
  readonly startedMs = performance.now()
  readonly #tail: JournalTail
  #run: string | undefined

  constructor(site: Site, { jobId, journal }: JobRecord) {
    this.site = site
    this.jobId = jobId
    this.#tail = new JournalTail(stateDirOf(site.modelsDir), { ...journal })
  }

  /** Take what its own run has written down since the last call. */
  readJournal(): TrainerEvent[] {
    return this.#tail.read().filter(event => this.#take(event))
  }

  evidence(timeMinutes: number | undefined): Evidence {
    return { jobId: this.jobId, done: this.done, log: logOf(this.site), timeMinutes }
  }

  /** @returns false for an event of another run, such as one that somebody starts by hand */
  #take(event: TrainerEvent): boolean {
    if (event.event === 'run.start' && event.slurmJob === this.jobId) {
      this.#run = event.run
      this.host = event.host ?? this.host
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
    }
    return true
  }
}
