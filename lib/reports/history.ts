import type { TrainerEvent } from '../events.ts'
import type { JobName } from '../quotas.ts'
import { findHolder } from '../run/lock.ts'
import { beginJob, type JobHistory, type TrainingSpan, takeJobEvent } from './job-history.ts'
import { readEvents } from './past-events.ts'

const DAY_MS = 24 * 60 * 60_000
const MAX_WARNINGS = 50

/** One run, from the events in the journal. */
export type RunHistory = {
  run: string
  /** When it began, as an ISO date. */
  startedAt: string
  /** The jobs it was asked for; those without an entry in `jobs` were never reached. */
  asked: JobName[]
  durationMs: number
  /** Undefined if the run's end was not seen: it goes on, or it was killed or lost its power. */
  exitCode: number | undefined
  /** Does it hold the lock? */
  isRunning: boolean
  /** Has it made a day-1 check, as all do that train? */
  isChecked: boolean
  /** The job before which it waits for a quiet machine, as the last that it has written down. */
  waitsBefore: JobName | undefined
  message: string | undefined
  warnings: string[]
  jobs: JobHistory[]
}

/**
 * Read the last runs from the journal, the oldest first, and see which one goes on. The lock is looked at first: a run
 * that ends meanwhile has its end in the journal.
 *
 * @param keep how many runs
 * @returns the runs, and who holds the lock
 * @throws {TrainerError} `storage` if this user cannot read the journal or look at the lock
 */
export function readRuns(
  stateDir: string,
  keep: number,
): { runs: RunHistory[]; holder: ReturnType<typeof findHolder> } {
  const holder = findHolder(stateDir)
  const runs = groupRuns(readEvents(stateDir), keep)
  const last = runs.at(-1)
  if (last) last.isRunning = !!holder && last.exitCode === undefined
  return { runs, holder }
}

/**
 * Was the run to train? A run that only prunes comes to its jobs without a day-1 check, and one that only makes that
 * check comes to no job; both may find nothing to do. Of a run without its start in the journal, which is bounded, the
 * check is lost too: only a training tells so much.
 */
export function isTrainingRun({ asked, isChecked, jobs, exitCode }: RunHistory): boolean {
  return jobs.length ? isChecked || !asked.length : exitCode !== 0
}

/**
 * Put the events together that belong to one run.
 *
 * Time in a run is what its events' clock tells, except that a clock which was set meanwhile (back, or ahead by
 * more than a day) counts as no time at all: an appliance without a battery learns the date while it trains.
 *
 * @param keep how many runs, the last ones; memory is bounded by it
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

class Recorder {
  readonly history: RunHistory
  #clockMs: number

  constructor({ run, time }: TrainerEvent) {
    this.#clockMs = Date.parse(time)
    this.history = {
      run,
      startedAt: time,
      asked: [],
      durationMs: 0,
      exitCode: undefined,
      isRunning: false,
      isChecked: false,
      waitsBefore: undefined,
      message: undefined,
      warnings: [],
      jobs: [],
    }
  }

  take(event: TrainerEvent, position: number): void {
    const { history } = this
    history.durationMs += this.#sinceLast(event.time)
    history.waitsBefore = event.event === 'run.wait' ? event.job : undefined
    switch (event.event) {
      case 'run.start':
        history.asked = event.jobs
        return
      case 'run.done':
        history.exitCode = event.exitCode
        history.message = event.message
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

/** A job of a run whose training was started. */
export type Trained = { run: RunHistory; job: JobHistory; training: TrainingSpan }

/** Every training of the runs, in the order of the journal. */
export function trainingsOf(runs: RunHistory[]): Trained[] {
  return runs
    .flatMap(run => run.jobs.flatMap(job => (job.training ? [{ run, job, training: job.training }] : [])))
    .sort((a, b) => a.training.order[0] - b.training.order[0])
}

/**
 * Trainings that began before another had ended, each with that other one.
 *
 * The journal's order decides, not the clock: every event is appended when it happens, so of two trainings at
 * once the events are interleaved, whatever was the time of day. The end of a training whose run was killed is not
 * in the journal; it counts up to its last event, and the kernel's lock kept the next run waiting for the rest.
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
