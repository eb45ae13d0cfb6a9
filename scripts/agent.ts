/** Train agent alone: node --import tsx scripts/agent.ts [--max-disk-mb N] [--retrain] … */
import { trainingOptions } from '../lib/run/command-line.ts'
import { perform, type Run, summaryOf } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { trainJob } from '../lib/training.ts'
import { checkDay1 } from './day1.ts'

export const trainAgent = (run: Run): Promise<void> =>
  trainJob('agent', run, async (job, { preflight, train, postflight }) => {
    const budget = await preflight(job) // measure, prune down to the quota, refuse a start that could only fail
    if (run.command.dryRun) return
    const report = await train(job, budget) // its command, in the sandbox and under the guard
    await postflight(job, budget, report) // check the models, measure and prune around them, publish them
  })

if (isEntry(import.meta)) {
  const takes = [...trainingOptions, 'max-disk-mb' as const]
  process.exitCode = await perform(
    { name: 'scripts/agent.ts', summary: 'Train agent alone.', job: 'agent', takes },
    async run => {
      await checkDay1(run)
      await trainAgent(run)
      return summaryOf(run)
    },
  )
}
