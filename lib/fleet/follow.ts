import { setTimeout as delay } from 'node:timers/promises'
import { messageOf, TrainerError } from '../errors.ts'
import { keepOutcome } from '../run/job-record.ts'
import { count } from '../text.ts'
import { jobNameOf } from './batch-script.ts'
import { type FleetEventBody, stampFleetEvent } from './fleet-events.ts'
import type { Fleet } from './fleet-file.ts'
import { countReasons, type FollowedSite } from './followed-site.ts'
import { hasEnded, judge, judgeGone, type Outcome, obstacleOf } from './outcome.ts'
import type { FleetOutput } from './output.ts'
import { Pace } from './pace.ts'
import {
  cancelJobs,
  describeReason,
  findInAccounting,
  isNamed,
  listJobs,
  NoAnswer,
  type SlurmJob,
} from './slurm.ts'

/** How often the journals are looked at. */
const TICK_MS = 1000
/** Look at a site that waits only once in so many looks. */
const WAITING_TICKS = 5
/** A file that another machine has written may come so late. */
const LATE_FILE_MS = 3000
/** Where only that file tells a success from nothing at all: an NFS client may take it for unchanged for a minute. */
const LATE_SUCCESS_MS = 60_000
/** How often Slurm is asked once the jobs are cancelled. */
const CANCEL_POLL_MS = 1000
/** By then Slurm's KillWait, 30 s unless somebody has changed it, is over. */
const CANCEL_DEADLINE_MS = 120_000

/**
 * Follows the jobs of a fleet to their ends: how far they are by the sites' journals, which live by Slurm, which is
 * asked as rarely as possible.
 */
export class Follower {
  readonly #fleet: Fleet
  readonly #sites: FollowedSite[]
  readonly #output: FleetOutput
  #pace: Pace
  #ticks = 0
  #awaySinceMs: number | undefined
  #cancelledAtMs: number | undefined
  #isCancelSent = false
  #toldReasons: string[] = []

  constructor(fleet: Fleet, sites: FollowedSite[], output: FleetOutput, pollMs: number) {
    this.#fleet = fleet
    this.#sites = sites
    this.#output = output
    this.#pace = new Pace(pollMs)
  }

  /**
   * Follow until every site has an outcome. Once `signal` is aborted the jobs are cancelled, and followed to their end all
   * the same; a terminal that is gone cancels nothing.
   *
   * @throws {TrainerError} `config` if Slurm's programs are gone; `sighup`
   */
  async follow(signal: AbortSignal): Promise<void> {
    for (; this.#sites.some(it => this.#isOpen(it)); this.#ticks++) {
      if (signal.reason?.code === 'sighup') throw signal.reason
      // Until Slurm has taken it: a controller that is away when it is asked may be back.
      if (signal.aborted || this.#cancelledAtMs !== undefined) await this.cancel()
      this.#readJournals()
      const hasHint = this.#sites.some(({ outcome, done }) => !outcome && done)
      if (this.#pace.isDue(performance.now(), hasHint)) await this.#askSlurm()
      this.#output.show(this.#sites)
      if (this.#isOverdue()) return this.#giveUp()
      // A signal ends the wait, but later ones have nothing to end.
      const stop = this.#cancelledAtMs === undefined ? { signal } : {}
      if (this.#sites.some(it => this.#isOpen(it))) await delay(TICK_MS, undefined, stop).catch(() => {})
    }
  }

  /** End every job that is still in the queue; those that are held too. */
  async cancel(): Promise<void> {
    if (this.#cancelledAtMs === undefined) {
      this.#cancelledAtMs = performance.now()
      this.#pace = new Pace(CANCEL_POLL_MS)
    }
    if (this.#isCancelSent) return
    try {
      const ids = await this.#queuedIds()
      if (ids.length) await cancelJobs(ids)
      this.#isCancelSent = true
      this.#hasAnswered()
      const message = `ending ${count(ids.length, 'job')}; each has its grace to save`
      if (ids.length) this.#emit({ event: 'warning', message })
    } catch (error) {
      this.#hasNoAnswer(error)
    }
  }

  /**
   * Ask Slurm which jobs of ours are in its queue: a cluster that was made anew may have given their ids to others.
   *
   * @throws {NoAnswer}
   */
  async #queuedIds(): Promise<number[]> {
    const asked = this.#sites.filter(({ isGone }) => !isGone)
    if (!asked.length) return []
    const jobs = await listJobs(asked.map(({ jobId }) => jobId))
    return asked.flatMap(({ site, jobId }) => {
      const job = jobs.get(jobId)
      return job && isNamed(job, jobNameOf(site)) && !hasEnded(job) ? [jobId] : []
    })
  }

  /** Is there still something to wait for: how its job comes out, or that a cancelled one leaves its node? */
  #isOpen({ outcome, isGone }: FollowedSite): boolean {
    return !outcome || (this.#cancelledAtMs !== undefined && !isGone)
  }

  #readJournals(): void {
    const looksAtWaiting = this.#ticks % WAITING_TICKS === 0
    for (const site of this.#sites) {
      const isAwaited = site.state === 'running' || site.isGone
      if (!site.outcome && (isAwaited || looksAtWaiting)) this.#readJournal(site)
    }
  }

  #readJournal(site: FollowedSite): void {
    for (const event of site.readJournal()) {
      this.#setRunning(site, site.host)
      this.#output.take({ ...event, site: site.site.name })
    }
  }

  #setRunning(site: FollowedSite, host: string): void {
    if (site.state !== 'waiting') return
    site.state = 'running'
    site.host = host
    const body = { event: 'site.start', site: site.site.name, slurmJob: site.jobId, host } as const
    this.#output.take(stampFleetEvent(body, site.begunAt))
  }

  async #askSlurm(): Promise<void> {
    const startedMs = performance.now()
    const open = this.#sites.filter(it => this.#isOpen(it))
    const states = () =>
      open.map(({ state, outcome, reason, isGone }) => [state, !!outcome, reason, isGone].join()).join()
    const before = states()
    try {
      const jobs = await listJobs(open.map(({ jobId }) => jobId))
      const nowMs = performance.now()
      this.#hasAnswered()
      for (const site of open) {
        const job = jobs.get(site.jobId)
        await this.#takeState(site, job && isNamed(job, jobNameOf(site.site)) ? job : undefined)
      }
      this.#tellWaiting()
      this.#pace.take(nowMs, nowMs - startedMs, before !== states())
    } catch (error) {
      this.#hasNoAnswer(error)
      this.#pace.take(performance.now(), 0, false)
    }
  }

  /** Tell why sites wait whenever there is a reason for which none has waited at the look before. */
  #tellWaiting(): void {
    const reasons = countReasons(this.#sites)
    const names = Object.keys(reasons)
    if (names.some(name => !this.#toldReasons.includes(name))) this.#emit({ event: 'fleet.wait', reasons })
    this.#toldReasons = names
  }

  async #takeState(site: FollowedSite, job: SlurmJob | undefined): Promise<void> {
    if (!job || hasEnded(job)) return this.#takeEnd(site, job)
    const obstacle = obstacleOf(job)
    if (obstacle && !site.outcome) return await this.#end(site, obstacle)
    if (job.state === 'PENDING' || job.state === 'CONFIGURING') {
      site.reason = job.reason === 'None' ? '' : describeReason(job.reason)
      return
    }
    if (site.state === 'waiting') this.#readJournal(site) // it knows since when
    this.#setRunning(site, job.nodes)
  }

  /** Slurm's word decides; the reason, or for a job that Slurm has forgotten the end, is in the journal. */
  async #takeEnd(site: FollowedSite, job: SlurmJob | undefined): Promise<void> {
    site.isGone = true
    site.ended = job
    if (site.outcome) return
    this.#readJournal(site)
    const { kept, doneAt } = site
    if (!job && kept && !(doneAt && doneAt > kept.at)) return await this.#end(site, kept)
    site.endSeenMs ??= performance.now()
    const patienceMs = job?.state === 'COMPLETED' ? LATE_SUCCESS_MS : LATE_FILE_MS
    const isLate = performance.now() - site.endSeenMs > patienceMs
    if (isLate || (job ? isComplete(job, site) : site.done)) await this.#judge(site)
  }

  /** Judge a job that has ended by what is known of it now. */
  async #judge(site: FollowedSite): Promise<void> {
    const { ended: job } = site
    const { timeMinutes } = this.#fleet.slurm
    const known = job ?? (site.done ? undefined : await findInAccounting(site.jobId))
    const evidence = site.evidence(timeMinutes)
    await this.#end(site, known && hasEnded(known) ? judge(known, evidence) : judgeGone(evidence))
  }

  async #end(site: FollowedSite, outcome: Outcome): Promise<void> {
    const { name } = site.site
    if (outcome !== site.kept) await this.#keep(site, outcome)
    site.outcome = outcome
    site.training = undefined
    site.state = outcome.exitCode ? 'failed' : 'done'
    const common = { site: name, slurmJob: site.jobId, message: outcome.message }
    if (outcome.exitCode) this.#emit({ event: 'site.fail', exitCode: outcome.exitCode, ...common })
    else this.#emit({ event: 'site.done', seconds: site.secondsSinceSubmission(), ...common })
  }

  /** Whoever looks at the site later finds how it came out, though its job may have left no run. */
  async #keep({ site, jobId, isGone }: FollowedSite, outcome: Outcome): Promise<void> {
    try {
      await keepOutcome(site, outcome, jobId, !isGone)
    } catch (error) {
      if (!(error instanceof TrainerError)) throw error
      const message = `${site.name}: --status will not know how its job ${jobId} came out: ${error.message}`
      this.#emit({ event: 'warning', message })
    }
  }

  #hasNoAnswer(error: unknown): void {
    if (!(error instanceof NoAnswer)) throw error
    if (this.#awaySinceMs === undefined) this.#emit({ event: 'slurm.away', message: messageOf(error) })
    this.#awaySinceMs ??= performance.now()
  }

  #hasAnswered(): void {
    if (this.#awaySinceMs === undefined) return
    this.#emit({ event: 'slurm.back', seconds: (performance.now() - this.#awaySinceMs) / 1000 })
    this.#awaySinceMs = undefined
  }

  #isOverdue(): boolean {
    return this.#cancelledAtMs !== undefined && performance.now() - this.#cancelledAtMs > CANCEL_DEADLINE_MS
  }

  async #giveUp(): Promise<void> {
    for (const site of this.#sites.filter(it => !it.outcome)) {
      const message = `its job ${site.jobId} was cancelled, but not seen to end; look at squeue -j ${site.jobId}`
      if (site.isGone) await this.#judge(site)
      else await this.#end(site, { exitCode: 143, message })
    }
  }

  #emit(body: FleetEventBody): void {
    this.#output.take(stampFleetEvent(body))
  }
}

/** Is its reason known, or is there none to wait for? */
function isComplete({ state, exitCode, signal }: SlurmJob, { done, host }: FollowedSite): boolean {
  if (state === 'CANCELLED') return !!done || !host
  return done?.exitCode === exitCode || signal !== 0 || (state !== 'COMPLETED' && state !== 'FAILED')
}

/** The worst exit code of all, and how many sites it is of. */
export function summarize(outcomes: Outcome[]): { exitCode: number; message: string } {
  const failed = outcomes.filter(({ exitCode }) => exitCode !== 0).length
  const exitCode = Math.max(0, ...outcomes.map(it => it.exitCode))
  const done = `${outcomes.length - failed} of ${count(outcomes.length, 'site')} done`
  return { exitCode, message: failed ? `${done}, ${failed} failed` : done }
}

/** The interruption as the end of a fleet, where there was one. */
export function interruptionOf(signal: AbortSignal): Outcome | undefined {
  const { reason } = signal
  return reason instanceof TrainerError ? { exitCode: reason.exitCode, message: reason.message } : undefined
}
