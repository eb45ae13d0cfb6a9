import { join } from 'node:path'
import { messageOf, TrainerError } from './errors.ts'
import type { TrainerEvent } from './events.ts'
import type { PublishedCheck } from './models.ts'
import type { JobName, Quotas } from './quotas.ts'
import { type Command, parseCommand, type Runner } from './run/command-line.ts'
import { Journal } from './run/journal.ts'
import { printJson, printLine, type Told, withoutRepetition } from './run/line-output.ts'
import { Metrics } from './run/metrics.ts'
import { type Opening, open } from './run/opening.ts'
import { untilNextPassMs, waitFor } from './run/schedule.ts'
import { listenForSignals } from './run/signals.ts'
import { packageVersion } from './settings/options.ts'
import { exitCodeOf, reportFailure, runScript, stackOf } from './settings/script.ts'

/** What the live list shows between events: usage at the last look, and the training's last line. */
export type Progress = { usedBytes?: number; limitBytes?: number; line?: string }

/** One run: what its steps share. */
export type Run = {
  command: Command
  quotas: Quotas
  modelsDir: string
  journal: Journal
  /** None in a dry run, which leaves no trace. */
  metrics: Metrics | undefined
  /** Descriptor of the held lock, for the training to inherit; none in a dry run, which starts nothing. */
  lockFd: number | undefined
  /** Aborted by SIGHUP, SIGINT or SIGTERM; its reason is the TrainerError to end with. */
  signal: AbortSignal
  /** What the day-1 check found, by job. */
  published: Map<JobName, PublishedCheck>
  /** Jobs that this run has trained, or is training: not one that failed. */
  trained: Set<JobName>
  /** What an operator wants to know at the end, from a body that does something else than train. */
  outcome?: string
  /** Called for every event once it is in the journal, and for progress; a live list replaces these. */
  onEvent: (event: TrainerEvent) => void
  onProgress: (job: JobName, progress: Progress) => void
}

/** A step of a run: the day-1 check or one job. */
export type Step = (run: Run) => Promise<void>

/**
 * One run from its command line to its exit status: quotas, models folder, lock, journal, signals, then `body`.
 *
 * @returns the exit status; every failure has been shown as one line by then
 */
export async function perform(runner: Runner, body: Step): Promise<number> {
  let isRecorded = false
  const main = async () => {
    const command = parseCommand(process.argv.slice(2), runner)
    if (typeof command === 'string') {
      process.stdout.write(`${command}\n`)
      return 0
    }
    isRecorded = !command.dryRun
    const interrupts = listenForSignals()
    try {
      return command.everyMs === undefined
        ? await performOnce(command, body, interrupts.signal)
        : await performEvery(command.everyMs, command, body, interrupts.signal)
    } finally {
      interrupts.close()
    }
  }
  return runScript(main, () => isRecorded)
}

/**
 * Pass after pass until interrupted, each with quotas.json read again. The first is an ordinary run; after a success the
 * next one retrains. A failed pass is tried again with back-off, for the jobs that it did not train, except a first one
 * that cannot even start.
 */
async function performEvery(
  everyMs: number,
  command: Command,
  body: Step,
  signal: AbortSignal,
): Promise<number> {
  let failures = 0
  let due = { jobs: command.jobs, retrain: command.retrain }
  for (let passes = 0; ; passes++) {
    let waitMs = 0
    const announceNext = (journal: Journal) => {
      if (signal.aborted) return
      waitMs = untilNextPassMs(everyMs, failures)
      const reason = `${failures ? 'to try again' : 'to retrain'} ${due.jobs.join(', ')}`
      journal.emit({ event: 'run.wait', reason, seconds: waitMs / 1000 })
    }
    const conclude = ({ journal, trained }: Run, exitCode: number) => {
      failures = exitCode === 0 ? 0 : failures + 1
      due = failures
        ? { ...due, jobs: due.jobs.filter(job => !trained.has(job)) }
        : { jobs: command.jobs, retrain: true }
      announceNext(journal)
    }
    const exitCode = await performOnce({ ...command, ...due }, body, signal, conclude).catch(error => {
      if (passes === 0) throw error
      failures++
      const reported = reportFailure(error)
      // It has come to no journal of its own.
      announceNext(new Journal(undefined, command.json ? printJson : printLine))
      return reported
    })
    if (await waitFor(waitMs, signal)) continue
    // A pass that was itself interrupted has said so.
    return exitCode === exitCodeOf(signal.reason) ? exitCode : reportFailure(signal.reason)
  }
}

async function performOnce(
  command: Command,
  body: Step,
  signal: AbortSignal,
  atEnd: (run: Run, exitCode: number) => void = () => {},
): Promise<number> {
  const startedMs = performance.now()
  const opening = await open(command)
  const run = openRun(command, opening, signal)
  const { journal, modelsDir } = run
  const finish = (exitCode: number, message: string) => {
    const seconds = (performance.now() - startedMs) / 1000
    journal.emit({ event: 'run.done', exitCode, seconds, message })
    atEnd(run, exitCode)
    return exitCode
  }
  try {
    const { dryRun, jobs } = command
    journal.emit({
      event: 'run.start',
      modelsDir,
      jobs,
      version: packageVersion(),
      ...(dryRun && { dryRun }),
    })
    await body(run)
    return finish(0, run.outcome ?? outcomeOf(run))
  } catch (error) {
    if (!(error instanceof TrainerError)) process.stderr.write(`${stackOf(error)}\n`)
    return finish(exitCodeOf(error), messageOf(error))
  } finally {
    await run.metrics?.close()
    journal.close()
    opening.lock?.release()
  }
}

/** What an operator wants to know at the end of a run that went well. */
function outcomeOf({ command, modelsDir, published, trained }: Run): string {
  const missing = command.jobs.filter(job => published.get(job)?.missing)
  if (command.dryRun)
    return `dry run, nothing was changed; would train ${trained.size ? [...trained].join(', ') : 'nothing'}`
  if (trained.size)
    return `trained ${[...trained].join(', ')}; ${command.jobs.join(', ')} ready in ${modelsDir}`
  return missing.length
    ? `${missing.join(', ')} without a valid model in ${modelsDir}`
    : `nothing to do: ${command.jobs.join(', ')} ready in ${modelsDir}`
}

function openRun(command: Command, { quotas, modelsDir, lock }: Opening, signal: AbortSignal): Run {
  const warn = (message: string) => run.journal.emit({ event: 'warning', message })
  const metrics = command.dryRun ? undefined : new Metrics(modelsDir, quotas, command.trains, warn)
  const told: Told = { reasons: new Map(), guarantees: new Set() }
  const run: Run = {
    command,
    quotas,
    modelsDir,
    metrics,
    lockFd: lock?.fd,
    signal,
    published: new Map(),
    trained: new Set(),
    journal: new Journal(command.dryRun ? undefined : join(modelsDir, '.trainer'), event => {
      metrics?.take(event)
      run.onEvent(event)
      if (event.event === 'job.start') told.guarantees.add(event.guarantee)
      if (event.event === 'quota.exceeded' || event.event === 'job.fail')
        told.reasons.set(event.message, event.job)
    }),
    onEvent: command.json ? printJson : event => printLine(withoutRepetition(event, told), told.guarantees),
    onProgress: () => {},
  }
  return run
}
