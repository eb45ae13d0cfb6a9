import type { Usage } from '../errors.ts'
import type { TrainerEvent } from '../events.ts'
import type { JobName } from '../quotas.ts'

/** The most points drawn over time; more than a screen has columns are thinned out. */
const MAX_DRAWN = 1000
/** The most items listed: the last ones. */
const MAX_LISTED = 200

/** A measurement of usage; `atMs` counts milliseconds from the run's start, here and below. */
type Sample = { atMs: number; usedBytes: number }

/** One deletion: the bytes that it freed, and the bytes used after it. */
type Prune = {
  atMs: number
  path: string
  bytes: number
  mtime: string
  rule: string
  usedBytes: number
}

/** The time of a training process. `order` holds the positions of its first and last event in the journal. */
export type TrainingSpan = {
  startMs: number
  endMs: number
  order: [first: number, last: number]
  /** Undefined if the journal has no end of it: it goes on, or its run was killed. */
  exit: { exitCode: number | null; signal: string | null } | undefined
  /** Its progress as its lines said last, when, and the seconds that were left then by its pace. */
  told: { share: number; secondsLeft: number | undefined; at: string } | undefined
}

/** One job of one run. */
export type JobHistory = {
  job: JobName
  outcome: 'done' | 'refused' | 'failed' | 'interrupted' | 'skipped' | 'unfinished'
  /** The reason why it failed, was interrupted or was skipped. */
  reason: string
  startMs: number
  endMs: number
  dir: string | undefined
  guarantee: string | undefined
  quotaBytes: number | undefined
  training: TrainingSpan | undefined
  /** The largest measurement since the training began. */
  peakBytes: number
  /** The last measurement above a limit, which may be less than the quota. Running into the limit is not above it. */
  excess: Usage | undefined
  samples: Sample[]
  /** Pauses to prune; `atMs` is thinned out. */
  freezes: { count: number; pausedMs: number; atMs: number[] }
  /** All deletions; `atMs` is thinned out, `last` holds the last ones. */
  prunes: { count: number; bytes: number; atMs: number[]; last: Prune[] }
  published: { path: string; bytes: number; sha256: string; metrics: Record<string, number> }[]
  /** Why its new model was not accepted, and the figures that were asked for. */
  refused: Refusal | undefined
  /** The generation that an operator has made current, and the one that was. */
  rollback: { generation: number; from: number } | undefined
}

/** A model that was not accepted: figures by name, `null` where the trainer told none, and the least that would do. */
export type Refusal = { reason: string; metrics: Record<string, { figure: number | null; limit: number }> }

/** Begin the history of a job that a run has come to. */
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
    refused: undefined,
    rollback: undefined,
  }
}

type JobEvent = Exclude<
  TrainerEvent,
  { event: 'run.start' | 'run.done' | 'run.wait' | 'day1.check' | 'warning' }
>

/** Add an event of a job to its history. `position` is the event's position in the journal. */
export function takeJobEvent(history: JobHistory, event: JobEvent, atMs: number, position: number): void {
  const { training } = history
  history.endMs = atMs
  if (training && !training.exit) {
    training.endMs = atMs
    training.order[1] = position
  }
  // Keep the first limit: later ones may be less than the quota, where the disk has less room.
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
      history.outcome = outcomeOf(event.code)
      history.reason = event.message
      return
    case 'train.start':
      history.training ??= {
        startMs: atMs,
        endMs: atMs,
        order: [position, position],
        exit: undefined,
        told: undefined,
      }
      history.training.exit = undefined
      return
    case 'train.progress':
      if (training) training.told = toldBy(event)
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
    case 'model.refuse': {
      const { reason, metrics } = event
      history.refused = { reason, metrics }
      return
    }
    case 'model.rollback': {
      const { generation, from } = event
      history.rollback = { generation, from }
      history.outcome = 'done'
      return
    }
    case 'storage.usage':
    case 'train.output':
      return
    default:
      event satisfies never
  }
}

function toldBy({
  share,
  secondsLeft,
  time,
}: Extract<JobEvent, { event: 'train.progress' }>): TrainingSpan['told'] {
  return share === null ? undefined : { share, secondsLeft, at: time }
}

function outcomeOf(code: string): JobHistory['outcome'] {
  if (code === 'not-accepted') return 'refused'
  return code.startsWith('sig') ? 'interrupted' : 'failed'
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

/** Keep the one with more bytes of every two neighbours: no peak is lost. */
function largerOfPairs(samples: Sample[]): Sample[] {
  return samples.filter((sample, index) => {
    const { usedBytes } = samples[index ^ 1] ?? { usedBytes: -1 }
    return sample.usedBytes > usedBytes || (sample.usedBytes === usedBytes && index % 2 === 0)
  })
}
