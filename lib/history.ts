import type { PastEvent } from './past-events.ts'
import type { JobName } from './quotas.ts'

/** More samples than a screen has columns are thinned out, keeping the larger of two neighbours. */
const MAX_SAMPLES = 2000
/** Of anything else that happens often the last ones are kept, beside the counts of all. */
const MAX_KEPT = 200

/** A figure of a run is taken at `atMs`, milliseconds after the run's start. */
export type Sample = { atMs: number; usedBytes: number }

/** One deletion: bytes freed, and bytes used after it. */
export type Prune = {
  atMs: number
  path: string
  bytes: number
  mtime: string
  rule: string
  usedBytes: number
}

/** The time of a training process; `order` are the places of its first and last event in the journal. */
export type TrainingSpan = {
  startMs: number
  endMs: number
  order: [first: number, last: number]
  /** Undefined if its end was not seen: it goes on, or its run was killed. */
  exit: { exitCode: number | null; signal: string | null } | undefined
}

/** What one run did with one job. */
export type JobHistory = {
  job: JobName
  outcome: 'done' | 'failed' | 'skipped' | 'unfinished'
  /** Why it failed or was skipped. */
  reason: string
  /** Kind of the failure, as in TrainerError. */
  code: string | undefined
  startMs: number
  endMs: number
  dir: string | undefined
  guarantee: string | undefined
  limitBytes: number | undefined
  training: TrainingSpan | undefined
  peakBytes: number
  samples: Sample[]
  /** The last ones; `freezeCount` counts all. */
  freezes: { atMs: number; pausedMs: number }[]
  freezeCount: number
  /** The last ones; `pruned` has the sums of all. */
  prunes: Prune[]
  pruned: { files: number; bytes: number }
  published: { path: string; bytes: number; sha256: string; metrics: Record<string, number> }[]
}

/** One run, from the events in the journal. */
export type RunHistory = {
  run: string
  /** When it began, as an ISO date. */
  startedAt: string
  version: string | undefined
  /** The jobs it was asked for; those without an entry in `jobs` were never reached. */
  asked: JobName[]
  durationMs: number
  /** Undefined if the run's end was not seen: it goes on, or it was killed. */
  exitCode: number | undefined
  message: string | undefined
  warnings: string[]
  jobs: JobHistory[]
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
export function groupRuns(events: Iterable<PastEvent>, keep = 10): RunHistory[] {
  const runs = new Map<string, Recorder>()
  let place = 0
  for (const event of events) {
    let recorder = runs.get(event.run)
    if (!recorder) {
      recorder = new Recorder(event)
      runs.set(event.run, recorder)
      if (runs.size > keep) runs.delete(runs.keys().next().value!)
    }
    recorder.take(event, place++)
  }
  return Array.from(runs.values(), recorder => recorder.history)
}

const DAY_MS = 24 * 60 * 60_000

class Recorder {
  readonly history: RunHistory
  #clockMs: number

  constructor({ run, time }: PastEvent) {
    this.#clockMs = Date.parse(time)
    this.history = {
      run,
      startedAt: time,
      version: undefined,
      asked: [],
      durationMs: 0,
      exitCode: undefined,
      message: undefined,
      warnings: [],
      jobs: [],
    }
  }

  take(event: PastEvent, place: number): void {
    const { history } = this
    history.durationMs += this.#sinceLast(event.time)
    switch (event.event) {
      case 'run.start':
        history.version = event.version
        history.asked = event.jobs
        return
      case 'run.done':
        history.exitCode = event.exitCode
        history.message = event.message
        return
      case 'warning':
        keepLast(history.warnings, event.message)
        return
      default:
        takeJobEvent(this.#jobOf(event.job), event, history.durationMs, place)
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
    const atMs = this.history.durationMs
    const begun: JobHistory = {
      job,
      outcome: 'unfinished',
      reason: '',
      code: undefined,
      startMs: atMs,
      endMs: atMs,
      dir: undefined,
      guarantee: undefined,
      limitBytes: undefined,
      training: undefined,
      peakBytes: 0,
      samples: [],
      freezes: [],
      freezeCount: 0,
      prunes: [],
      pruned: { files: 0, bytes: 0 },
      published: [],
    }
    this.history.jobs.push(begun)
    return begun
  }
}

type JobEvent = Exclude<PastEvent, { event: 'run.start' | 'run.done' | 'warning' }>

function takeJobEvent(history: JobHistory, event: JobEvent, atMs: number, place: number): void {
  const { training } = history
  history.endMs = atMs
  if (training && !training.exit) {
    training.endMs = atMs
    training.order[1] = place
  }
  if ('limitBytes' in event) history.limitBytes = event.limitBytes
  if ('usedBytes' in event) takeSample(history, { atMs, usedBytes: event.usedBytes })
  switch (event.event) {
    case 'job.start':
      history.dir = event.dir
      history.guarantee = event.guarantee
      return
    case 'job.skip':
      history.outcome = 'skipped'
      history.reason = event.reason
      return
    case 'job.done':
      history.outcome = 'done'
      return
    case 'job.fail':
      history.outcome = 'failed'
      history.reason = event.message
      history.code = event.code
      return
    case 'train.start':
      history.training = { startMs: atMs, endMs: atMs, order: [place, place], exit: undefined }
      return
    case 'train.exit':
      if (training) training.exit = { exitCode: event.exitCode, signal: event.signal }
      return
    case 'train.freeze':
      history.freezeCount++
      keepLast(history.freezes, { atMs, pausedMs: 0 })
      return
    case 'train.resume':
      if (history.freezes.length) history.freezes.at(-1)!.pausedMs = event.pausedMs
      return
    case 'storage.prune': {
      const { path, bytes, mtime, rule, usedBytes } = event
      history.pruned.files++
      history.pruned.bytes += bytes
      keepLast(history.prunes, { atMs, path, bytes, mtime, rule, usedBytes })
      return
    }
    case 'model.publish': {
      const { path, bytes, sha256, metrics } = event
      keepLast(history.published, { path, bytes, sha256, metrics })
      return
    }
    case 'storage.usage':
    case 'quota.exceeded':
      return
    default:
      event satisfies never
  }
}

function keepLast<T>(list: T[], item: T): void {
  if (list.push(item) > MAX_KEPT) list.shift()
}

function takeSample(history: JobHistory, sample: Sample): void {
  history.peakBytes = Math.max(history.peakBytes, sample.usedBytes)
  if (history.samples.push(sample) <= MAX_SAMPLES) return
  const { samples } = history
  history.samples = samples.filter((it, index) => {
    const neighbour = samples[index ^ 1]
    return (
      !neighbour ||
      it.usedBytes > neighbour.usedBytes ||
      (it.usedBytes === neighbour.usedBytes && index % 2 === 0)
    )
  })
}
