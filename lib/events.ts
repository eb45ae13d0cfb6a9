import * as v from 'valibot'
import type { ErrorCode } from './errors.ts'
import { jobNames } from './quotas.ts'

/** How much an event matters. */
export type Level = 'debug' | 'info' | 'warning' | 'error' | 'critical'

/** Names the bound of a training's bytes, a filesystem of its own or watching, and whether it is in a sandbox. */
const guarantee = v.picklist(['kernel+sandbox', 'kernel', 'watch+sandbox', 'watch'])
export type Guarantee = v.InferOutput<typeof guarantee>

const text = v.string()
const number = v.pipe(v.number(), v.finite())
const job = v.picklist(jobNames)
const yes = v.exactOptional(v.literal(true))
const place = {
  /** The machine, or on Slurm the node, that a run is on. */
  host: v.exactOptional(text),
  /** The Slurm job that a run is. */
  slurmJob: v.exactOptional(number),
}

/** One kind of event: its name and its fields. */
function kind<const Name extends string, const Fields extends v.ObjectEntries>(name: Name, fields: Fields) {
  return v.object({ event: v.literal(name), ...fields })
}

/**
 * Everything that can happen in a run: the one place from which the events' types, their form in the journal and the
 * journal's reader come. Sizes are bytes; `seconds` and `pausedMs` are monotonic durations.
 */
const eventBody = v.variant('event', [
  kind('run.start', {
    modelsDir: text,
    jobs: v.array(job),
    version: text,
    dryRun: yes,
    ...place,
  }),
  /** `message` sums up the run, or says why it failed. Its place again: the journal may have dropped the begin by then. */
  kind('run.done', { exitCode: number, seconds: number, message: v.optional(text, ''), ...place }),
  kind('run.wait', { job: v.exactOptional(job), reason: text, seconds: number }),
  kind('day1.check', { job, models: v.array(text), missing: v.boolean(), reason: text }),
  kind('job.start', { job, dir: text, limitBytes: number, guarantee, dryRun: yes }),
  kind('job.skip', { job, reason: text }),
  kind('job.done', { job, seconds: number, usedBytes: number }),
  /** `code` is an ErrorCode, or `internal` for a defect of this program. */
  kind('job.fail', { job, code: text, message: text }),
  kind('storage.usage', {
    job,
    /** When in a job's life the measurement was taken. */
    phase: v.picklist(['preflight', 'training', 'postflight']),
    usedBytes: number,
    limitBytes: number,
    freeBytes: number,
  }),
  kind('storage.prune', {
    job,
    path: text,
    bytes: number,
    /** The modification time of what was deleted, in ISO 8601. */
    mtime: text,
    /** The glob that allowed the deletion. */
    rule: text,
    usedBytes: number,
    dryRun: yes,
  }),
  kind('train.start', { job, pid: number, argv: v.array(text) }),
  kind('train.output', { job, line: text }),
  /** Progress by the training's lines: a share of 1, `null` when they say it no more, and the time left by its pace. */
  kind('train.progress', { job, share: v.nullable(number), secondsLeft: v.exactOptional(number) }),
  kind('train.exit', { job, exitCode: v.nullable(number), signal: v.nullable(text), seconds: number }),
  /** `usedBytes` is what it may use by the filesystem's account, which others write to as well. */
  kind('train.freeze', { job, usedBytes: number }),
  /** `usedBytes` is counted. */
  kind('train.resume', {
    job,
    usedBytes: number,
    pausedMs: number,
    /** Nothing was pruned. */
    countedOnly: yes,
  }),
  kind('quota.exceeded', { job, usedBytes: number, limitBytes: number, message: text }),
  kind('model.publish', {
    job,
    path: text,
    bytes: number,
    sha256: text,
    /** Its external data: of very many files the first. */
    data: v.optional(v.array(v.object({ name: text, bytes: number, sha256: text })), []),
    /** How many more files of it there are, which the manifest names. */
    moreData: v.exactOptional(number),
    /** Left out on a filesystem without links. */
    generation: v.exactOptional(number),
    metrics: v.optional(v.record(v.string(), v.number()), {}),
  }),
  kind('model.refuse', {
    job,
    reason: text,
    /** The figures that were asked for, by name; `null` where the trainer told none. */
    metrics: v.record(v.string(), v.object({ figure: v.nullable(number), limit: number })),
  }),
  /** `from` was current before. */
  kind('model.rollback', { job, generation: number, from: number, dryRun: yes }),
  kind('warning', { job: v.exactOptional(job), message: text }),
])

/** An event's name and fields. */
export type EventBody = v.InferOutput<typeof eventBody>

const stamp = v.object({
  /** ISO 8601, UTC. */
  time: v.pipe(
    v.string(),
    v.check(time => !Number.isNaN(Date.parse(time))),
  ),
  level: v.picklist(['debug', 'info', 'warning', 'error', 'critical']),
  run: v.string(),
})

/** An event as it is written: one JSON object a line. */
export type TrainerEvent = v.InferOutput<typeof stamp> & EventBody

/** Read an event back; undefined for anything else, such as an event of another version. */
export function parseEvent(value: unknown): TrainerEvent | undefined {
  const stamped = v.safeParse(stamp, value)
  const body = v.safeParse(eventBody, value)
  return stamped.success && body.success ? { ...stamped.output, ...body.output } : undefined
}

/** Stamp an event with the time and its level. */
export function stampEvent(run: string, body: EventBody): TrainerEvent {
  return { time: new Date().toISOString(), level: levelOf(body), run, ...body }
}

/** The codes of failures that are none: a signal ended the run. */
const interruptions: string[] = ['sighup', 'sigint', 'sigterm'] satisfies ErrorCode[]

function levelOf(body: EventBody): Level {
  switch (body.event) {
    case 'quota.exceeded':
      return 'critical'
    case 'job.fail':
      return interruptions.includes(body.code) ? 'warning' : 'error'
    case 'warning':
    case 'model.refuse':
      return 'warning'
    case 'run.done':
      // An interruption is somebody's wish, such as a shutdown's.
      return body.exitCode === 0 ? 'info' : body.exitCode > 128 ? 'warning' : 'error'
    case 'train.progress':
      return 'debug'
    case 'storage.usage':
      return body.phase === 'training' ? 'debug' : 'info'
    case 'train.exit':
      return body.exitCode === 0 ? 'info' : 'warning'
    default:
      return 'info'
  }
}
