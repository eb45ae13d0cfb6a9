import { join } from 'node:path'
import { replaceFileSync } from '../../system/durable.ts'
import { readPlain, reasonOf } from '../../system/plain-file.ts'
import { nameSample, parseMetrics, renderMetrics } from './exposition.ts'

/** The file that a collector reads, in the state folder. */
export const PAGE = 'metrics.prom'

const MAX_BYTES = 64 * 1024

/** What the last run has written; empty if that cannot be read. */
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
 * Note with what exit code a run could not even start, or the figures would go on telling of the last success. Nothing
 * else in them changes.
 *
 * @throws where the figures cannot be written
 */
export async function noteFailedStart(stateDir: string, exitCode: number): Promise<void> {
  const samples = parseMetrics(readPage(stateDir))
  samples.set(nameSample('last_exit_code'), exitCode)
  samples.set(nameSample('update_timestamp_seconds'), Date.now() / 1000)
  replacePage(stateDir, await renderMetrics(samples))
}
