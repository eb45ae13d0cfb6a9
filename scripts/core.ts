/** Train core alone: node --import tsx scripts/core.ts [--max-disk-mb N] [--retrain] … */

import { perform, type Run } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { runJob } from '../lib/training.ts'
import { checkDay1 } from './day1.ts'

/** Pre-flight, train, post-flight of core: lib/training/phases.ts. */
export const trainCore = (run: Run): Promise<void> => runJob('core', run)

if (isEntry(import.meta)) {
  process.exitCode = await perform(
    { name: 'scripts/core.ts', summary: 'Train core alone.', job: 'core' },
    async run => {
      await checkDay1(run)
      await trainCore(run)
    },
  )
}
