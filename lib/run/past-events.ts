import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../errors.ts'
import { parseEvent, type TrainerEvent } from '../events.ts'
import { storageError } from '../system/durable.ts'
import { MIB } from '../text.ts'

/** The most that is read of a file, from its end. The journal keeps its files at half of this. */
const MAX_FILE_BYTES = 16 * MIB
const MAX_LINE_BYTES = 64 * 1024
const CHUNK_BYTES = 64 * 1024

/**
 * Read the journal back, oldest event first, `events.jsonl.1` before `events.jsonl`. Torn lines, garbage and events
 * of other versions are left out. Memory is bounded whatever the files hold. A run may go on writing meanwhile.
 *
 * @param stateDir the models folder's `.trainer`; without a journal in it there are no events
 * @throws {TrainerError} `storage` if the journal exists and cannot be read
 * @example for (const event of readEvents(stateDirOf(modelsDir))) console.log(event.event)
 */
export function* readEvents(stateDir: string): Generator<TrainerEvent> {
  for (const line of readLines(join(stateDir, 'events.jsonl'))) {
    const event = parseLine(line)
    if (event) yield event
  }
}

/** The event of one line of a journal; undefined for anything else, such as a torn line. */
export function parseLine(line: string): TrainerEvent | undefined {
  try {
    return parseEvent(JSON.parse(line))
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
    throw storageError('Cannot read the journal', cause)
  }
}

function* linesIn({ fd, size }: Log): Generator<string> {
  const chunk = Buffer.alloc(CHUNK_BYTES)
  let line = Buffer.alloc(0)
  let isTooLong = size > MAX_FILE_BYTES // the first line may lack its beginning
  let position = Math.max(0, size - MAX_FILE_BYTES)
  for (;;) {
    const length = readInto(chunk, fd, position)
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

function readInto(chunk: Buffer, fd: number, position: number): number {
  try {
    return readSync(fd, chunk, 0, chunk.length, position)
  } catch (cause) {
    throw storageError('Cannot read the journal', cause)
  }
}
