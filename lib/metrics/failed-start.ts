import { join } from 'node:path'
import { nameSample, parseMetrics, renderMetrics, replaceFigures } from './exposition.ts'
import { readPage, replacePage } from './page.ts'

/**
 * Note with what exit code a run could not even start, or the figures would go on telling of the last success. Nothing
 * else in them changes; a run that holds the lock meanwhile writes its own again.
 *
 * @throws where the figures cannot be written
 */
export async function noteFailedStart(modelsDir: string, exitCode: number): Promise<void> {
  const stateDir = join(modelsDir, '.trainer')
  const page = readPage(stateDir)
  const samples = parseMetrics(page)
  samples.set(nameSample('last_exit_code'), exitCode)
  samples.set(nameSample('update_timestamp_seconds'), Date.now() / 1000)
  replacePage(stateDir, replaceFigures(page, samples) ?? (await renderMetrics(samples)))
}
