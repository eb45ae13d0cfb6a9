import { realpathSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { TrainerError } from './errors.ts'
import { priorityPrefix } from './run/lines.ts'

/** Is this file the program that was started, and not imported by another? */
export function isEntry(meta: ImportMeta): boolean {
  return meta.url === pathToFileURL(realpathSync(process.argv[1] ?? '')).href
}

/**
 * Run a script's body; a failure that an operator can act on becomes one line on stderr.
 *
 * @returns the exit status, for `process.exitCode`
 */
export async function runScript(body: () => Promise<number>): Promise<number> {
  // A reader that leaves (`| head`) must not stop a training.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  try {
    return await body()
  } catch (error) {
    return reportFailure(error)
  }
}

/** Say on stderr what went wrong, with a stack trace only for a defect of ours; returns the exit status for it. */
export function reportFailure(error: unknown): number {
  process.stderr.write(
    `${priorityPrefix(2, 'error')}ransomeye-trainer: ${error instanceof TrainerError ? error.message : stackOf(error)}\n`,
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
