/** Train dpi alone: node --import tsx scripts/dpi.ts [--max-disk-mb N] [--retrain] … */
import { trainingOptions } from '../lib/run/command-line.ts'
import { perform, type Run, summaryOf } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { trainJob } from '../lib/training.ts'
import { checkDay1 } from './day1.ts'

export const trainDpi = (run: Run): Promise<void> =>
  trainJob('dpi', run, async (job, { preflight, train, postflight }) => {
    const budget = await preflight(job) // measure, prune down to the quota, refuse a start that could only fail
    if (run.command.dryRun) return
    const report = await train(job, budget) // its command, in the sandbox and under the guard
    await postflight(job, budget, report) // check the models, measure and prune around them, publish them
  })

if (isEntry(import.meta)) {
  const takes = [...trainingOptions, 'max-disk-mb' as const]
  process.exitCode = await perform(
    { name: 'scripts/dpi.ts', summary: 'Train dpi alone.', job: 'dpi', takes },
    async run => {
      await checkDay1(run)
      await trainDpi(run)
      return summaryOf(run)
    },
  )
}
