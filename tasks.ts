/**
 * The task list: day-1 check → core → dpi → agent, strictly one after another.
 *
 *   node --import tsx tasks.ts [core] [dpi] [agent] [--models-dir DIR] [--retrain] [--dry-run] [--json]
 *
 * On a terminal it is a live list, elsewhere one timestamped line an event.
 */
import type { JobName } from './lib/quotas.ts'
import { trainingOptions } from './lib/run/command-line.ts'
import { LiveList } from './lib/run/live-list.ts'
import { perform, type Run, type Step, summaryOf } from './lib/run.ts'
import { trainAgent } from './scripts/agent.ts'
import { trainCore } from './scripts/core.ts'
import { checkDay1 } from './scripts/day1.ts'
import { trainDpi } from './scripts/dpi.ts'

type Task = { title: string; job?: JobName; step: Step }

const tasks: Task[] = [
  { title: 'day-1 check', step: checkDay1 },
  { title: 'core', job: 'core', step: trainCore },
  { title: 'dpi', job: 'dpi', step: trainDpi },
  { title: 'agent', job: 'agent', step: trainAgent },
]

const runner = {
  name: 'tasks.ts',
  summary: 'Train the core, dpi and agent models, one after another, each inside its quota.',
  takes: [...trainingOptions, 'every' as const, 'max-wait' as const],
  // A terminal without columns, such as a serial console, would show a list one character wide.
  ...(process.stdout.columns && process.env.TERM !== 'dumb' && { screen: () => new LiveList() }),
}

process.exitCode = await perform(runner, async run => {
  const chosen = tasks.filter(({ job }) => !job || run.command.jobs.includes(job))
  if (run.output instanceof LiveList) await showList(run.output, run, chosen)
  else for (const { step } of chosen) await step(run)
  return summaryOf(run)
})

/** The same steps as a list; listr2 takes as long to load as a whole check to run, so it is loaded only here. */
async function showList(live: LiveList, run: Run, chosen: Task[]): Promise<void> {
  const { Listr } = await import('listr2')
  const list = new Listr(
    chosen.map(({ title, step }) => ({
      title,
      task: (_, task) => live.follow(task, title, () => step(run)),
      rendererOptions: { persistentOutput: true },
    })),
    // Signals are ours: listr2 would end the process at once, past every cleanup.
    { registerSignalListeners: false, rendererOptions: { collapseErrors: false, collapseSkips: true } },
  )
  await live.show(list)
}
