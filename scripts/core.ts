/** Train core alone: node --import tsx scripts/core.ts [--max-disk-mb N] [--retrain] … */
import { trainingOptions } from '../lib/run/command-line.ts'
import { perform, type Run, summaryOf } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { trainJob } from '../lib/training.ts'
import { checkDay1 } from './day1.ts'

export const trainCore = (run: Run): Promise<void> =>
  trainJob('core', run, async (job, { preflight, train, postflight }) => {
    const budget = await preflight(job) // measure, prune down to the quota, refuse a start that could only fail
    if (run.command.dryRun) return
    const report = await train(job, budget) // its command, in the sandbox and under the guard
    await postflight(job, budget, report) // check the models, measure and prune around them, publish them
  })

if (isEntry(import.meta)) {
  const takes = [...trainingOptions, 'max-disk-mb' as const]
  process.exitCode = await perform(
    { name: 'scripts/core.ts', summary: 'Train core alone.', job: 'core', takes },
    async run => {
      await checkDay1(run)
      await trainCore(run)
      return summaryOf(run)
    },
  )
}
