import { messageOf, TrainerError } from './errors.ts'
import type { EventBody } from './events.ts'
import type { PublishedCheck } from './models.ts'
import { type JobName, limitedTo, type Quota, type Quotas } from './quotas.ts'
import { type Command, parseCommand, type Runner } from './run/command-line.ts'
import { Journal } from './run/journal.ts'
import { Metrics } from './run/metrics.ts'
import { type Opening, open } from './run/opening.ts'
import { JsonLines, type Output, TextLines } from './run/output.ts'
import { describePointedTo } from './run/pruned-words.ts'
import { type Due, nextDue, untilNextPassMs, waitFor } from './run/schedule.ts'
import { listenForSignals } from './run/signals.ts'
import { type JobFolders, layout, scratchLayout, stateDirOf } from './settings/layout.ts'
import { packageVersion } from './settings/options.ts'
import { exitCodeOf, print, reportFailure, runScript, stackOf } from './settings/script.ts'
import type { Pruned } from './storage/prune.ts'
import { whereabouts } from './system/whereabouts.ts'

/** One run, as its steps share it. */
export type Run = {
  command: Command
  quotas: Quotas
  modelsDir: string
  /** The jobs asked for, in the order in which they run. */
  jobs: Job[]
  journal: Journal
  output: Output
  /** Undefined in a dry run, which leaves no trace. */
  metrics: Metrics | undefined
  /** The held lock's descriptor, for the training to inherit; undefined in a dry run, which starts nothing. */
  lockFd: number | undefined
  /** Aborted by SIGHUP, SIGINT or SIGTERM; its reason is the TrainerError to end with. */
  signal: AbortSignal
}

/** Something that a run has pruned: its escaped path, the rule, the time in ISO 8601, and whether it was the best checkpoint. */
export type PrunedPath = { path: string; rule: string; time: string; isBest?: true }

/** So many of the last ones are remembered. */
const MOST_PRUNED = 1000

/** One job of a run, as the day-1 check and the phases of its training share it. */
export type Job = JobFolders & {
  name: JobName
  /** Where its models are published: its own folder, unless it trains on scratch. */
  publishedDir: string
  /** Its settings; `--max-disk-mb` replaces its quota. */
  quota: Quota
  run: Run
  /** The result of the day-1 check; undefined before it. */
  check: PublishedCheck | undefined
  /** How far the run has come with it; in a dry run `trained` means that it would be trained. */
  state: 'asked' | 'skipped' | 'training' | 'trained' | 'refused' | 'failed'
  emit: (event: EventBody) => void
  onPrune: (pruned: Pruned) => void
  /** The prunes that {@link onPrune} was told of, as far as they are remembered; the newest last. */
  pruned: PrunedPath[]
  /** Warns of what could not be deleted. */
  onFault: (message: string) => void
}

/** A step of a run: the day-1 check or one job. */
export type Step = (run: Run) => Promise<void>

/** The steps of a run; returns the message that an operator wants to read at its end. */
export type Body = (run: Run) => Promise<string>

/** The outcome of one pass; its journal is still open, for one more event. */
type Pass = { exitCode: number; trained: JobName[]; journal: Journal }

/**
 * Perform a run from its command line to its exit status: read the quotas, open the models folder, take the lock, keep
 * the journal, listen for signals, and do `body`.
 *
 * @returns the exit status; every failure has been printed as one line by then
 */
export async function perform(runner: Runner, body: Body): Promise<number> {
  let isRecorded = false
  const main = async () => {
    const command = parseCommand(process.argv.slice(2), runner)
    if (typeof command === 'string') {
      print(command)
      return 0
    }
    isRecorded = !command.dryRun
    const { everyMs } = command
    const interrupts = listenForSignals()
    const { signal } = interrupts
    const pass = (due: Partial<Due>) => performOnce({ ...command, ...due }, runner, body, signal)
    try {
      if (everyMs !== undefined) return await performEvery({ ...command, everyMs }, pass, signal)
      const { exitCode, journal } = await pass({})
      journal.close()
      return exitCode
    } finally {
      interrupts.close()
    }
  }
  return runScript(main, () => isRecorded)
}

/**
 * Perform pass after pass until interrupted, and read quotas.json anew for each. The first is an ordinary run; after a
 * success the next one retrains. A failed pass is repeated with back-off for the jobs that it did not train. A first pass
 * that cannot start ends everything.
 */
async function performEvery(
  { jobs, retrain, json, everyMs }: Command & { everyMs: number },
  perform: (due: Due) => Promise<Pass>,
  signal: AbortSignal,
): Promise<number> {
  let due: Due = { jobs, retrain, failures: 0 }
  for (let passes = 0; ; passes++) {
    const pass = await perform(due).catch((error): Pass => {
      if (passes === 0) throw error
      // A pass that cannot open its folder has no journal.
      const journal = new Journal()
      listenWith(json ? new JsonLines() : new TextLines(), journal)
      return { exitCode: reportFailure(error), trained: [], journal }
    })
    due = nextDue(due, jobs, pass)
    const waitMs = untilNextPassMs(everyMs, due.failures)
    const reason = `${due.failures ? 'to try again' : 'to retrain'} ${due.jobs.join(', ')}`
    if (!signal.aborted) pass.journal.emit({ event: 'run.wait', reason, seconds: waitMs / 1000 })
    pass.journal.close()
    if (await waitFor(waitMs, signal)) continue
    // An interrupted pass has already said so.
    return pass.exitCode === exitCodeOf(signal.reason) ? pass.exitCode : reportFailure(signal.reason)
  }
}

async function performOnce(
  command: Command,
  { screen }: Runner,
  body: Body,
  signal: AbortSignal,
): Promise<Pass> {
  const startedMs = performance.now()
  const opening = await open(command, signal)
  const output = command.json ? new JsonLines() : (screen?.() ?? new TextLines())
  const run = await openRun(command, opening, output, signal)
  const { journal, modelsDir } = run
  const finish = (exitCode: number, message: string): Pass => {
    output.close()
    const seconds = (performance.now() - startedMs) / 1000
    journal.emit({ event: 'run.done', exitCode, seconds, message, ...whereabouts() })
    return { exitCode, trained: [...namesOf(run, 'trained'), ...namesOf(run, 'refused')], journal }
  }
  try {
    const { dryRun, jobs } = command
    const version = packageVersion()
    journal.emit({
      event: 'run.start',
      modelsDir,
      jobs,
      version,
      ...(dryRun && { dryRun }),
      ...whereabouts(),
    })
    for (const message of opening.doubts) journal.emit({ event: 'warning', message })
    const message = await body(run)
    const refused = namesOf(run, 'refused')
    if (refused.length)
      throw new TrainerError('not-accepted', `not accepted: ${refused.join(', ')}; ${message}`)
    return finish(0, message)
  } catch (error) {
    if (!(error instanceof TrainerError)) process.stderr.write(`${stackOf(error)}\n`)
    return finish(exitCodeOf(error), messageOf(error))
  } finally {
    await run.metrics?.close()
    journal.flush() // the next run's first event must not come before our last
    opening.lock?.release()
  }
}

/** Sum up a run that was to train and went well, but for models that were not accepted. */
export function summaryOf(run: Run): string {
  const { command, modelsDir } = run
  const trained = namesOf(run, 'trained').join(', ')
  if (command.dryRun) return `dry run, nothing was changed; would train ${trained || 'nothing'}`
  const missing = run.jobs.filter(({ check, state }) => check?.missing && state !== 'trained')
  const isIdle = !trained && !missing.length && !namesOf(run, 'refused').length
  const outcome = missing.length
    ? `${missing.map(({ name }) => name).join(', ')} without a valid model in ${modelsDir}`
    : `${command.jobs.join(', ')} ready in ${modelsDir}`
  if (isIdle) return `nothing to do: ${outcome}`
  return trained ? `trained ${trained}; ${outcome}` : outcome
}

function namesOf({ jobs }: Run, state: Job['state']): JobName[] {
  return jobs.filter(job => job.state === state).map(({ name }) => name)
}

async function openRun(
  command: Command,
  { quotas, modelsDir, lock }: Opening,
  output: Output,
  signal: AbortSignal,
): Promise<Run> {
  const { dryRun, trains } = command
  const journal = new Journal(dryRun ? undefined : stateDirOf(modelsDir))
  const warn = (message: string) => journal.emit({ event: 'warning', message })
  const metrics = dryRun ? undefined : new Metrics(modelsDir, quotas, trains, warn)
  if (metrics) journal.listen(event => metrics.take(event))
  listenWith(output, journal)
  const jobs: Job[] = []
  const run = { command, quotas, modelsDir, jobs, journal, output, metrics, lockFd: lock?.fd, signal }
  jobs.push(...(await Promise.all(command.jobs.map(name => openJob(name, run)))))
  return run
}

function listenWith(output: Output, journal: Journal): void {
  journal.listen(event => output.take(event))
}

async function openJob(name: JobName, run: Run): Promise<Job> {
  const { command, quotas, modelsDir, journal } = run
  const emit = (event: EventBody) => journal.emit(event)
  const { scratch } = command
  const published = layout(modelsDir, name)
  const dryRun = command.dryRun ? ({ dryRun: true } as const) : {}
  const remembered: PrunedPath[] = []
  return {
    ...(scratch === undefined ? published : await scratchLayout(scratch, modelsDir, name)),
    publishedDir: published.jobDir,
    name,
    quota: limitedTo(quotas.jobs[name], command.maxDiskMb),
    run,
    check: undefined,
    state: 'asked',
    emit,
    onPrune({ pointer, isBest, ...pruned }) {
      emit({ event: 'storage.prune', job: name, ...pruned, ...dryRun })
      const { path, rule } = pruned
      const time = new Date().toISOString()
      if (remembered.push({ path, rule, time, ...(isBest && { isBest }) }) > MOST_PRUNED) remembered.shift()
      if (pointer === undefined) return
      emit({ event: 'warning', job: name, message: describePointedTo(path, pointer, isBest) })
    },
    pruned: remembered,
    onFault: message => emit({ event: 'warning', job: name, message }),
  }
}
