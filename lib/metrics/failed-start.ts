import { nameSample, parseMetrics, renderMetrics, replaceFigures } from './exposition.ts'
import { readPage, replacePage } from './page.ts'

/**
 * Note with what exit code a run could not even start, or the figures would go on telling of the last success. Nothing
 * else in them changes.
 *
 * @throws where the figures cannot be written
 */
export async function noteFailedStart(stateDir: string, exitCode: number): Promise<void> {
  const page = readPage(stateDir)
  const samples = parseMetrics(page)
  samples.set(nameSample('last_exit_code'), exitCode)
  samples.set(nameSample('update_timestamp_seconds'), Date.now() / 1000)
  replacePage(stateDir, replaceFigures(page, samples) ?? (await renderMetrics(samples)))
}
