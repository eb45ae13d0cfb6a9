import { isTrainingRun, type RunHistory } from '../history.ts'
import type { JobHistory } from '../job-history.ts'

/** The colour of a result. */
export type ResultTone = 'good' | 'bad' | 'muted'

const failures: Record<number, string> = {
  1: 'a training failed',
  2: 'quota exceeded',
  3: 'disk full or not writable',
  4: 'a model was not accepted',
  129: 'terminal closed',
  130: 'interrupted',
  143: 'terminated',
}

/** Tell the result of a run in a few words. */
export function resultOf(run: RunHistory): { text: string; tone: ResultTone } {
  const { exitCode, isRunning, isChecked, jobs } = run
  if (isRunning) return { text: 'running', tone: 'muted' }
  if (exitCode === undefined) return { text: 'cut off', tone: 'bad' }
  if (exitCode === 1 && !isTrainingRun(run)) return { text: 'failed', tone: 'bad' }
  if (exitCode !== 0) return { text: failures[exitCode] ?? `exit code ${exitCode}`, tone: 'bad' }
  if (jobs.some(({ rollback }) => rollback)) return { text: 'rolled back', tone: 'muted' }
  if (!isTrainingRun(run)) return { text: isChecked ? 'checked' : 'pruned', tone: 'muted' }
  const isIdle = jobs.every(({ outcome }) => outcome === 'skipped')
  return isIdle ? { text: 'nothing to do', tone: 'muted' } : { text: 'done', tone: 'good' }
}

const tones = {
  done: 'good',
  refused: 'bad',
  failed: 'bad',
  interrupted: 'bad',
  skipped: 'muted',
} as const

/** Tell the outcome of a job of a run. A run without an entry for the job never came to it. */
export function outcomeOf(job: JobHistory | undefined, run: RunHistory): { text: string; tone: ResultTone } {
  if (!job) return { text: isTrainingRun(run) ? 'not started' : '', tone: 'muted' }
  const { outcome, prunes, rollback } = job
  if (rollback)
    return { text: `generation ${rollback.generation} is back, ${rollback.from} was current`, tone: 'muted' }
  if (outcome === 'unfinished')
    return run.isRunning ? { text: 'running', tone: 'muted' } : { text: 'cut off', tone: 'bad' }
  if (outcome === 'done' && !isTrainingRun(run))
    return { text: prunes.count ? 'pruned' : 'nothing to prune', tone: 'muted' }
  return { text: outcome, tone: tones[outcome] }
}

const clock = new Intl.DateTimeFormat('en-GB', {
  timeZone: 'UTC',
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
})

/** Format a date, ISO or in milliseconds, as `24 Nov, 11:42:25` in UTC. Any other text stays as it is. */
export function formatTime(time: string | number): string {
  const date = new Date(time)
  return Number.isNaN(date.getTime()) ? String(time) : clock.format(date)
}
