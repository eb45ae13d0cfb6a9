/** Train dpi alone: node --import tsx scripts/dpi.ts [--max-disk-mb N] [--retrain] … */

import { perform, type Run } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { runJob } from '../lib/training.ts'
import { checkDay1 } from './day1.ts'

/** Pre-flight, train, post-flight of dpi: lib/training/phases.ts. */
export const trainDpi = (run: Run): Promise<void> => runJob('dpi', run)

if (isEntry(import.meta)) {
  process.exitCode = await perform(
    { name: 'scripts/dpi.ts', summary: 'Train dpi alone.', job: 'dpi' },
    async run => {
      await checkDay1(run)
      await trainDpi(run)
    },
  )
}
