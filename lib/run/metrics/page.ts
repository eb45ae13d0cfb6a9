import { join } from 'node:path'
import { replaceFileSync } from '../../system/durable.ts'
import { readPlain, reasonOf } from '../../system/plain-file.ts'
import { nameSample, parseMetrics, renderMetrics } from './exposition.ts'

/** The file that a collector reads, in the state folder. */
export const PAGE = 'metrics.prom'

const MAX_BYTES = 64 * 1024

/** Read the page of the last run; empty if it cannot be read. */
export function readPage(stateDir: string): string {
  try {
    return readPlain(stateDir, PAGE, MAX_BYTES)
  } catch (error) {
    reasonOf(error)
    return ''
  }
}

/** Put another page in its place, which the collector can read; it finds the old one or the new one. */
export function replacePage(stateDir: string, page: string): void {
  replaceFileSync(join(stateDir, PAGE), page)
}

/**
 * Note the exit code of a run that could not start: without it the figures would go on telling of the last success. No
 * other figure changes.
 *
 * @throws the system's error if the figures cannot be written
 */
export async function noteFailedStart(stateDir: string, exitCode: number): Promise<void> {
  const samples = parseMetrics(readPage(stateDir))
  samples.set(nameSample('last_exit_code'), exitCode)
  samples.set(nameSample('update_timestamp_seconds'), Date.now() / 1000)
  replacePage(stateDir, await renderMetrics(samples))
}
