/** Train agent alone: node --import tsx scripts/agent.ts [--max-disk-mb N] [--retrain] … */

import { perform, type Run } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { runJob } from '../lib/training.ts'
import { checkDay1 } from './day1.ts'

/** Pre-flight, train, post-flight of agent: lib/training/phases.ts. */
export const trainAgent = (run: Run): Promise<void> => runJob('agent', run)

if (isEntry(import.meta)) {
  process.exitCode = await perform(
    { name: 'scripts/agent.ts', summary: 'Train agent alone.', job: 'agent' },
    async run => {
      await checkDay1(run)
      await trainAgent(run)
    },
  )
}
