import { fstatSync, realpathSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { isErrno, TrainerError } from '../errors.ts'
import type { Level } from '../events.ts'
import { storageError } from '../system/durable.ts'
import { escapeText } from '../text.ts'

/** Is this file the program that was started, and not imported by another? */
export function isEntry(meta: ImportMeta): boolean {
  return meta.url === pathToFileURL(realpathSync(process.argv[1] ?? '')).href
}

/**
 * Run a script's body; a failure that an operator can act on becomes one line on stderr. So does output that was lost,
 * unless `isRecorded` says at the end that it is kept elsewhere too, as a run's is in its journal.
 *
 * @returns the exit status, for `process.exitCode`
 */
export async function runScript(
  body: () => Promise<number>,
  isRecorded: () => boolean = () => false,
): Promise<number> {
  let lost: unknown
  // Nothing that becomes of the output must stop a training; and a reader that leaves (`| head`) has what it wanted.
  process.stdout.on('error', error => {
    if (!isErrno(error, 'EPIPE')) lost ??= error
  })
  process.stderr.on('error', () => {})
  try {
    const exitCode = await body()
    await new Promise(resolve => process.stdout.write('', resolve)) // by then it is known what was lost
    if (!lost || isRecorded()) return exitCode
    return Math.max(exitCode, reportFailure(storageError('Cannot write to stdout', lost)))
  } catch (error) {
    return reportFailure(error)
  }
}

/** Print what a script was asked for. */
export function print(text: string): void {
  process.stdout.write(text)
  // Apart: of a write that a full disk cuts short Node.js says nothing, but the next one fails.
  process.stdout.write('\n')
}

/** Say on stderr what went wrong, with a stack trace only for a defect of ours; returns the exit status for it. */
export function reportFailure(error: unknown): number {
  const text = error instanceof TrainerError ? error.message : stackOf(error)
  process.stderr.write(
    `${priorityPrefix(2, 'error')}ransomeye-trainer: ${text.split('\n').map(escapeText).join('\n')}\n`,
  )
  return exitCodeOf(error)
}

/** The exit status of a failure; a defect of ours counts as a failed training. */
export function exitCodeOf(error: unknown): number {
  return error instanceof TrainerError ? error.exitCode : 1
}

/** Where a defect of ours was met. */
export function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}

/** Syslog's numbers, see sd-daemon(3). */
const priorities: Record<Level, number> = { critical: 2, error: 3, warning: 4, info: 6, debug: 7 }

/** `<4>` and the like in front of a line on this descriptor, if journald reads it; else nothing. */
export function priorityPrefix(fd: number, level: Level): string {
  const { JOURNAL_STREAM } = process.env
  if (!JOURNAL_STREAM) return ''
  const { dev, ino } = fstatSync(fd)
  return JOURNAL_STREAM === `${dev}:${ino}` ? `<${priorities[level]}>` : ''
}
