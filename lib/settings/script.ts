import { fstatSync, realpathSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { isErrno, TrainerError } from '../errors.ts'
import type { Level } from '../events.ts'
import { storageError } from '../system/durable.ts'
import { keepHeapSmall } from '../system/small-heap.ts'
import { escapeText } from '../text.ts'

/** Is this file the program that was started, and not imported by another? */
export function isEntry(meta: ImportMeta): boolean {
  return meta.url === pathToFileURL(realpathSync(process.argv[1] ?? '')).href
}

/**
 * Run a script's body. A failure that an operator can act on becomes one line on stderr. So does lost output, unless
 * `isRecorded` says at the end that it is kept elsewhere too, as a run's output is in its journal.
 *
 * @returns the exit status, for `process.exitCode`
 */
export async function runScript(
  body: () => Promise<number>,
  isRecorded: () => boolean = () => false,
): Promise<number> {
  keepHeapSmall()
  let lost: unknown
  // An error of the output must not stop a training, and a reader that leaves (`| head`) has what it wanted.
  process.stdout.on('error', error => {
    if (!isErrno(error, 'EPIPE')) lost ??= error
  })
  process.stderr.on('error', () => {})
  try {
    const exitCode = await body()
    await new Promise(resolve => process.stdout.write('', resolve)) // by then lost output has been reported
    if (!lost || isRecorded()) return exitCode
    return Math.max(exitCode, reportFailure(storageError('Cannot write to stdout', lost)))
  } catch (error) {
    return reportFailure(error)
  }
}

/** Print a script's answer. */
export function print(text: string): void {
  process.stdout.write(text)
  // Write the newline apart: Node.js hides a write that a full disk cuts short, but the next write fails.
  process.stdout.write('\n')
}

/** Say on stderr what went wrong, with a stack trace only for a defect of ours. Returns the exit status for it. */
export function reportFailure(error: unknown): number {
  const text = error instanceof TrainerError ? error.message : stackOf(error)
  const exitCode = exitCodeOf(error)
  // Whoever is interrupted has done nothing wrong. journald takes each line for an entry of its own.
  const priority = priorityPrefix(2, exitCode > 128 ? 'warning' : 'error')
  const lines = `ransomeye-trainer: ${text}`.split('\n').map(line => `${priority}${escapeText(line)}\n`)
  process.stderr.write(lines.join(''))
  return exitCode
}

/** Return the exit status of a failure. A defect of ours counts as a failed training. */
export function exitCodeOf(error: unknown): number {
  return error instanceof TrainerError ? error.exitCode : 1
}

/** Return the stack trace of a defect of ours. */
export function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}

/** Syslog's number for each level; see sd-daemon(3). */
const priorities: Record<Level, number> = { critical: 2, error: 3, warning: 4, info: 6, debug: 7 }

/** Return the priority to put before a line on this descriptor, such as `<4>`, if journald reads it; else empty. */
export function priorityPrefix(fd: number, level: Level): string {
  const { JOURNAL_STREAM } = process.env
  if (!JOURNAL_STREAM) return ''
  const { dev, ino } = fstatSync(fd)
  return JOURNAL_STREAM === `${dev}:${ino}` ? `<${priorities[level]}>` : ''
}
