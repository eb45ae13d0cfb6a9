import type { Usage } from '../errors.ts'
import type { TrainerEvent } from '../events.ts'
import type { JobName } from '../quotas.ts'

/** What is drawn over time is thinned out when there is more of it than a screen has columns. */
const MAX_DRAWN = 1000
/** What is listed is kept to the last ones. */
const MAX_LISTED = 200

/** A figure of a run is taken at `atMs`, milliseconds after the run's start. */
type Sample = { atMs: number; usedBytes: number }

/** One deletion: bytes freed, and bytes used after it. */
type Prune = {
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
  outcome: 'done' | 'failed' | 'interrupted' | 'skipped' | 'unfinished'
  /** Why it failed, was interrupted or skipped. */
  reason: string
  startMs: number
  endMs: number
  dir: string | undefined
  guarantee: string | undefined
  quotaBytes: number | undefined
  training: TrainingSpan | undefined
  /** The largest measurement since the training began. */
  peakBytes: number
  /** The last time that it was found above a limit, which may be less than the quota; one that ran into it was not. */
  excess: Usage | undefined
  samples: Sample[]
  /** Pauses to prune; `atMs` is thinned out. */
  freezes: { count: number; pausedMs: number; atMs: number[] }
  /** All deletions; `atMs` is thinned out, `last` are the last ones. */
  prunes: { count: number; bytes: number; atMs: number[]; last: Prune[] }
  published: { path: string; bytes: number; sha256: string; metrics: Record<string, number> }[]
}

/** A job that a run has come to. */
export function beginJob(job: JobName, atMs: number): JobHistory {
  return {
    job,
    outcome: 'unfinished',
    reason: '',
    startMs: atMs,
    endMs: atMs,
    dir: undefined,
    guarantee: undefined,
    quotaBytes: undefined,
    training: undefined,
    peakBytes: 0,
    excess: undefined,
    samples: [],
    freezes: { count: 0, pausedMs: 0, atMs: [] },
    prunes: { count: 0, bytes: 0, atMs: [], last: [] },
    published: [],
  }
}

type JobEvent = Exclude<
  TrainerEvent,
  { event: 'run.start' | 'run.done' | 'run.wait' | 'day1.check' | 'warning' }
>

/** Add to a job's history what an event of it tells; `position` is the event's in the journal. */
export function takeJobEvent(history: JobHistory, event: JobEvent, atMs: number, position: number): void {
  const { training } = history
  history.endMs = atMs
  if (training && !training.exit) {
    training.endMs = atMs
    training.order[1] = position
  }
  // The limit of a run may be less than the quota: what the disk leaves.
  if ('limitBytes' in event) history.quotaBytes ??= event.limitBytes
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
      history.outcome = event.code.startsWith('sig') ? 'interrupted' : 'failed'
      history.reason = event.message
      return
    case 'train.start':
      history.training ??= { startMs: atMs, endMs: atMs, order: [position, position], exit: undefined }
      history.training.exit = undefined
      return
    case 'train.exit':
      if (training) training.exit = { exitCode: event.exitCode, signal: event.signal }
      return
    case 'train.freeze':
      history.freezes.count++
      keepSome(history.freezes.atMs, atMs)
      return
    case 'train.resume':
      history.freezes.pausedMs += event.pausedMs
      return
    case 'storage.prune': {
      const { path, bytes, mtime, rule, usedBytes } = event
      const { prunes } = history
      prunes.count++
      prunes.bytes += bytes
      keepSome(prunes.atMs, atMs)
      keepLast(prunes.last, { atMs, path, bytes, mtime, rule, usedBytes })
      return
    }
    case 'model.publish': {
      const { path, bytes, sha256, metrics } = event
      keepLast(history.published, { path, bytes, sha256, metrics })
      return
    }
    case 'quota.exceeded':
      if (event.usedBytes > event.limitBytes)
        history.excess = { usedBytes: event.usedBytes, limitBytes: event.limitBytes }
      return
    case 'storage.usage':
    case 'train.output':
      return
    default:
      event satisfies never
  }
}

function keepLast<T>(list: T[], item: T): void {
  if (list.push(item) > MAX_LISTED) list.shift()
}

function keepSome(times: number[], atMs: number): void {
  if (times.push(atMs) > MAX_DRAWN)
    times.splice(0, times.length, ...times.filter((_, index) => index % 2 === 0))
}

function takeSample(history: JobHistory, sample: Sample): void {
  const { samples, training } = history
  if (training) history.peakBytes = Math.max(history.peakBytes, sample.usedBytes)
  if (samples.push(sample) > MAX_DRAWN) samples.splice(0, samples.length, ...largerOfPairs(samples))
}

/** Of two neighbours the one with more bytes, so that no peak is lost. */
function largerOfPairs(samples: Sample[]): Sample[] {
  return samples.filter((sample, index) => {
    const { usedBytes } = samples[index ^ 1] ?? { usedBytes: -1 }
    return sample.usedBytes > usedBytes || (sample.usedBytes === usedBytes && index % 2 === 0)
  })
}
