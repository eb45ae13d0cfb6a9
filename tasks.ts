/**
 * The task list: day-1 check → core → dpi → agent, strictly one after another.
 *
 *   node --import tsx tasks.ts [core] [dpi] [agent] [--models-dir DIR] [--retrain] [--dry-run] [--json]
 *
 * On a terminal it is a live list, elsewhere one timestamped line an event.
 */
import type { JobName } from './lib/quotas.ts'
import { perform, type Run, type Step } from './lib/run.ts'
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

const summary = 'Train the core, dpi and agent models, one after another, each inside its quota.'

process.exitCode = await perform({ name: 'tasks.ts', summary, isQueue: true }, async run => {
  const chosen = tasks.filter(({ job }) => !job || run.command.jobs.includes(job))
  if (isTerminal(run)) return showList(run, chosen)
  for (const { step } of chosen) await step(run)
})

/** Not a terminal without columns, such as a serial console: a list would be one character wide there. */
function isTerminal({ command }: Run): boolean {
  return !command.json && process.stdout.isTTY && !!process.stdout.columns && process.env.TERM !== 'dumb'
}

/** The same steps as a live list; loaded only here, because it takes as long to load as a whole check to run. */
async function showList(run: Run, chosen: Task[]): Promise<void> {
  const [{ Listr }, { Screen }] = await Promise.all([import('listr2'), import('./lib/run/live-list.ts')])
  const screen = new Screen()
  const printLine = run.onEvent
  run.onEvent = event => screen.takeEvent(event)
  run.onProgress = (_, progress) => screen.takeProgress(progress)
  const list = new Listr(
    chosen.map(({ title, step }) => ({
      title,
      task: async (_, task) => {
        screen.begin(task, title)
        try {
          await step(run)
        } catch (error) {
          throw screen.shown(error)
        } finally {
          screen.end()
        }
      },
      rendererOptions: { persistentOutput: true },
    })),
    // Signals are ours: listr2 would end the process at once, past every cleanup.
    { registerSignalListeners: false, rendererOptions: { collapseErrors: false, collapseSkips: true } },
  )
  await list.run().finally(() => {
    run.onEvent = printLine
    process.stdout.write(screen.close(process.stdout.columns))
  })
}
