import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { jobNames } from '../quotas.ts'
import { MIB } from '../text.ts'

/** The most that is read of a file, from its end. The journal keeps its files at half of this. */
const MAX_FILE_BYTES = 16 * MIB
const MAX_LINE_BYTES = 64 * 1024
const CHUNK_BYTES = 64 * 1024

const number = v.pipe(v.number(), v.finite())
const job = v.picklist(jobNames)
const stamp = {
  time: v.pipe(
    v.string(),
    v.check(time => !Number.isNaN(Date.parse(time))),
  ),
  run: v.string(),
}

/** The fields of each kind of event that the history needs. */
const pastEventSchema = v.variant('event', [
  v.object({ ...stamp, event: v.literal('run.start'), jobs: v.array(job) }),
  v.object({ ...stamp, event: v.literal('run.done'), exitCode: number, message: v.optional(v.string()) }),
  v.object({ ...stamp, event: v.literal('run.wait'), job: v.optional(job) }),
  v.object({ ...stamp, event: v.literal('day1.check'), job }),
  v.object({
    ...stamp,
    event: v.literal('job.start'),
    job,
    dir: v.string(),
    limitBytes: number,
    guarantee: v.string(),
  }),
  v.object({ ...stamp, event: v.literal('job.skip'), job, reason: v.string() }),
  v.object({ ...stamp, event: v.literal('job.done'), job, usedBytes: number }),
  v.object({
    ...stamp,
    event: v.literal('job.fail'),
    job,
    code: v.optional(v.string()),
    message: v.string(),
  }),
  v.object({ ...stamp, event: v.literal('storage.usage'), job, usedBytes: number, limitBytes: number }),
  v.object({
    ...stamp,
    event: v.literal('storage.prune'),
    job,
    path: v.string(),
    bytes: number,
    mtime: v.string(),
    rule: v.string(),
    usedBytes: number,
  }),
  v.object({ ...stamp, event: v.literal('quota.exceeded'), job, usedBytes: number, limitBytes: number }),
  v.object({ ...stamp, event: v.literal('train.start'), job }),
  v.object({
    ...stamp,
    event: v.literal('train.exit'),
    job,
    exitCode: v.nullable(number),
    signal: v.nullable(v.string()),
  }),
  v.object({ ...stamp, event: v.literal('train.freeze'), job, usedBytes: number }),
  v.object({ ...stamp, event: v.literal('train.resume'), job, usedBytes: number, pausedMs: number }),
  v.object({
    ...stamp,
    event: v.literal('model.publish'),
    job,
    path: v.string(),
    bytes: number,
    sha256: v.string(),
    metrics: v.record(v.string(), v.number()),
  }),
  v.object({ ...stamp, event: v.literal('warning'), job: v.optional(job), message: v.string() }),
])

/** An event as it is read back: a TrainerEvent without the fields that only matter while it happens. */
export type PastEvent = v.InferOutput<typeof pastEventSchema>

/**
 * Read the journal back, oldest event first, `events.jsonl.1` before `events.jsonl`. Torn lines, garbage and events
 * of other versions are left out. Memory is bounded whatever the files hold. A run may go on writing meanwhile.
 *
 * @param stateDir the models folder's `.trainer`; without a journal in it there are no events
 * @throws {TrainerError} `storage` if the journal exists and cannot be read
 * @example for (const event of readEvents(join(modelsDir, '.trainer'))) console.log(event.event)
 */
export function* readEvents(stateDir: string): Generator<PastEvent> {
  for (const line of readLines(join(stateDir, 'events.jsonl'))) {
    const { success, output } = v.safeParse(pastEventSchema, parse(line))
    if (success) yield output
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

function* readLines(path: string): Generator<string> {
  // Open the newer one first: if it is rotated in between, both are the same file, and no line is read twice.
  const newer = openLog(path)
  const older = openLog(`${path}.1`)
  try {
    if (older && older.ino !== newer?.ino) yield* linesIn(older)
    if (newer) yield* linesIn(newer)
  } finally {
    for (const log of [newer, older]) if (log) closeSync(log.fd)
  }
}

type Log = { fd: number; ino: number; size: number }

function openLog(path: string): Log | undefined {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const stats = fstatSync(fd)
    if (stats.isFile()) return { fd, ino: stats.ino, size: stats.size }
    closeSync(fd)
    return undefined
  } catch (cause) {
    if (isErrno(cause, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined
    throw new TrainerError('storage', `Cannot read the journal: ${messageOf(cause)}`, { cause })
  }
}

function* linesIn({ fd, size }: Log): Generator<string> {
  const chunk = Buffer.alloc(CHUNK_BYTES)
  let line = Buffer.alloc(0)
  let isTooLong = size > MAX_FILE_BYTES // the first line may lack its beginning
  let position = Math.max(0, size - MAX_FILE_BYTES)
  for (;;) {
    const length = readSync(fd, chunk, 0, chunk.length, position)
    if (length === 0) return
    position += length
    let start = 0
    for (let end = chunk.indexOf(10); end >= 0 && end < length; end = chunk.indexOf(10, start)) {
      if (!isTooLong) yield Buffer.concat([line, chunk.subarray(start, end)]).toString()
      line = Buffer.alloc(0)
      isTooLong = false
      start = end + 1
    }
    if (!isTooLong) line = Buffer.concat([line, chunk.subarray(start, length)])
    isTooLong ||= line.length > MAX_LINE_BYTES
  }
}
