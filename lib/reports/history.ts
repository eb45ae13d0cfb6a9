import type { TrainerEvent } from '../events.ts'
import type { JobName } from '../quotas.ts'
import { findHolder, findHolderElsewhere, type Holder } from '../run/lock-holders.ts'
import { readEvents } from '../run/past-events.ts'
import { beginJob, type JobHistory, type TrainingSpan, takeJobEvent } from './job-history.ts'

const DAY_MS = 24 * 60 * 60_000
const MAX_WARNINGS = 50

/** One run, as the events in the journal tell it. */
export type RunHistory = {
  run: string
  /** The time of its start, as an ISO date. */
  startedAt: string
  /** The machine, or on Slurm the node, that it ran on, where that is known. */
  host: string | undefined
  /** The Slurm job that it was. */
  slurmJob: number | undefined
  /** The jobs that it was asked for. A job without an entry in `jobs` was never reached. */
  asked: JobName[]
  durationMs: number
  /** Undefined if the journal has no end of the run: it goes on, was killed, or lost power. */
  exitCode: number | undefined
  /** Does it hold the lock? */
  isRunning: boolean
  /** Has it made a day-1 check? Every run that trains makes one. */
  isChecked: boolean
  /** The job before which it waits for a quiet machine, if its last event says so. */
  waitsBefore: JobName | undefined
  /** The time of the last event that began a stage of it, as an ISO date. */
  stageSince: string
  message: string | undefined
  warnings: string[]
  jobs: JobHistory[]
}

/** The holder of the lock; `isElsewhere` if only a run on another machine has written itself down. */
type RunHolder = Holder & { isElsewhere?: boolean }

/**
 * Read the last runs from the journal, the oldest first, and find the one that goes on. Looks at the lock first: a run
 * that ends meanwhile then has its end in the journal.
 *
 * @param keep how many of the last runs to return
 * @returns the runs, and the holder of the lock
 * @throws {TrainerError} `storage` if this user cannot read the journal or look at the lock
 */
export function readRuns(
  stateDir: string,
  keep: number,
): { runs: RunHistory[]; holder: RunHolder | undefined } {
  const here = findHolder(stateDir)
  const runs = groupRuns(readEvents(stateDir), keep)
  const last = runs.at(-1)
  const isOpen = last !== undefined && last.exitCode === undefined
  // A run on another machine shows only in what it has written down.
  const elsewhere = here || !isOpen ? undefined : findHolderElsewhere(stateDir)
  const holder = here ?? (elsewhere && { ...elsewhere, pid: undefined, isElsewhere: true })
  if (last) last.isRunning = !!holder && isOpen
  return { runs, holder }
}

/**
 * Did this run intend to train? A run that only prunes comes to its jobs without a day-1 check. A run that only makes
 * that check comes to no job. Both may find nothing to do. If rotation removed the run's start, only a training proves
 * it.
 */
export function isTrainingRun({ asked, isChecked, jobs, exitCode }: RunHistory): boolean {
  return jobs.length ? isChecked || !asked.length : exitCode !== 0
}

/**
 * Group events by run.
 *
 * Time in a run is the time of its events' clock. A clock that was set meanwhile (back, or ahead by more than a day)
 * counts as no time at all: an appliance without a battery learns the date while it trains.
 *
 * @param keep how many of the last runs to return; it bounds memory
 * @returns the oldest first
 */
export function groupRuns(events: Iterable<TrainerEvent>, keep = 10): RunHistory[] {
  const runs = new Map<string, Recorder>()
  let position = 0
  for (const event of events) {
    let recorder = runs.get(event.run)
    if (!recorder) {
      recorder = new Recorder(event)
      runs.set(event.run, recorder)
      if (runs.size > keep) runs.delete(runs.keys().next().value!)
    }
    recorder.take(event, position++)
  }
  return Array.from(runs.values(), recorder => recorder.history)
}

/** The events with which a stage of a run begins: what it does now, it does since the last of them. */
const stageBeginnings: TrainerEvent['event'][] = [
  'run.start',
  'run.wait',
  'job.start',
  'job.done',
  'job.fail',
  'train.start',
  'train.exit',
]

class Recorder {
  readonly history: RunHistory
  #clockMs: number

  constructor({ run, time }: TrainerEvent) {
    this.#clockMs = Date.parse(time)
    this.history = {
      run,
      startedAt: time,
      host: undefined,
      slurmJob: undefined,
      asked: [],
      durationMs: 0,
      exitCode: undefined,
      isRunning: false,
      isChecked: false,
      waitsBefore: undefined,
      stageSince: time,
      message: undefined,
      warnings: [],
      jobs: [],
    }
  }

  take(event: TrainerEvent, position: number): void {
    const { history } = this
    history.durationMs += this.#sinceLast(event.time)
    history.waitsBefore = event.event === 'run.wait' ? event.job : undefined
    if (stageBeginnings.includes(event.event)) history.stageSince = event.time
    switch (event.event) {
      case 'run.start':
        history.asked = event.jobs
        history.host = event.host
        history.slurmJob = event.slurmJob
        return
      case 'run.done':
        history.exitCode = event.exitCode
        history.message = event.message || undefined
        history.host ??= event.host
        history.slurmJob ??= event.slurmJob
        return
      case 'day1.check':
        history.isChecked = true
        return
      case 'run.wait':
        return
      case 'warning':
        if (history.warnings.push(event.message) > MAX_WARNINGS) history.warnings.shift()
        return
      default:
        takeJobEvent(this.#jobOf(event.job), event, history.durationMs, position)
    }
  }

  #sinceLast(time: string): number {
    const clockMs = Date.parse(time)
    const elapsedMs = clockMs - this.#clockMs
    this.#clockMs = clockMs
    return elapsedMs > 0 && elapsedMs < DAY_MS ? elapsedMs : 0
  }

  #jobOf(job: JobName): JobHistory {
    const known = this.history.jobs.find(it => it.job === job)
    if (known) return known
    const begun = beginJob(job, this.history.durationMs)
    this.history.jobs.push(begun)
    return begun
  }
}

/** A job of a run whose training began. */
export type Trained = { run: RunHistory; job: JobHistory; training: TrainingSpan }

/** List every training of the runs, in the order of the journal. */
export function trainingsOf(runs: RunHistory[]): Trained[] {
  return runs
    .flatMap(run => run.jobs.flatMap(job => (job.training ? [{ run, job, training: job.training }] : [])))
    .sort((a, b) => a.training.order[0] - b.training.order[0])
}

/**
 * Find trainings that began before another had ended, each with that other one.
 *
 * The journal's order decides, not the clock. Every event is appended when it happens: the events of two trainings at
 * once are interleaved, whatever the time of day was. A training whose run was killed has no end in the journal; it
 * counts up to its last event, and the kernel's lock kept the next run waiting for the rest.
 */
export function findOverlaps(runs: RunHistory[]): [earlier: Trained, later: Trained][] {
  const overlaps: [Trained, Trained][] = []
  let latest: Trained | undefined
  for (const training of trainingsOf(runs)) {
    if (latest && training.training.order[0] < latest.training.order[1]) overlaps.push([latest, training])
    if (!latest || training.training.order[1] > latest.training.order[1]) latest = training
  }
  return overlaps
}
