import { join } from 'node:path'
import { type Command, parseCommand, type Runner } from './command.ts'
import { messageOf, TrainerError } from './errors.ts'
import type { TrainerEvent } from './events.ts'
import { chooseModelsDir, openModelsDir } from './folders.ts'
import { describeEvent, Journal } from './journal.ts'
import { type Lock, takeLock } from './lock.ts'
import type { PublishedCheck } from './models.ts'
import { packageVersion } from './options.ts'
import { type JobName, type Quota, type Quotas, readQuotas } from './quotas.ts'
import { exitCodeOf, runScript, stackOf } from './script.ts'
import { listenForSignals } from './signals.ts'

/** What the live list shows between events: usage at the last look, and the training's last line. */
export type Progress = { usedBytes?: number; limitBytes?: number; line?: string }

/** One run: what its steps share. */
export type Run = {
  command: Command
  quotas: Quotas
  modelsDir: string
  journal: Journal
  /** Descriptor of the held lock, for the training to inherit; none in a dry run, which starts nothing. */
  lockFd: number | undefined
  /** Aborted by SIGINT or SIGTERM; its reason is the TrainerError to end with. */
  signal: AbortSignal
  /** What the day-1 check found, by job. */
  published: Map<JobName, PublishedCheck>
  /** Called for every event once it is in the journal, and for progress; a live list replaces these. */
  onEvent: (event: TrainerEvent) => void
  onProgress: (job: JobName, progress: Progress) => void
}

/** A step of a run: the day-1 check or one job. */
export type Step = (run: Run) => Promise<void>

/** The folder of one job: published models, manifest and `work/`. */
export function jobDirOf(run: Run, job: JobName): string {
  return join(run.modelsDir, job)
}

/** One job's quota, with a limit given on the command line in place of the file's. */
export function quotaOf(run: Run, job: JobName): Quota {
  const quota = run.quotas.jobs[job]
  return { ...quota, maxDiskMb: run.command.maxDiskMb ?? quota.maxDiskMb }
}

/**
 * One run from its command line to its exit status: quotas, models folder, lock, journal, signals, then `body`.
 *
 * @returns the exit status; every failure has been shown as one line by then
 */
export async function perform(runner: Runner, body: Step): Promise<number> {
  return runScript(async () => {
    const command = parseCommand(process.argv.slice(2), runner)
    if (typeof command !== 'string') return performCommand(command, body)
    process.stdout.write(`${command}\n`)
    return 0
  })
}

async function performCommand(command: Command, body: Step): Promise<number> {
  const startedMs = performance.now()
  const quotas = readQuotas(command.quotasFile)
  const modelsDir = openModelsDir(chooseModelsDir(command.modelsDir, quotas.modelsDir), command.dryRun)
  const lock = command.dryRun ? undefined : await takeLock(join(modelsDir, '.trainer'))
  const interrupts = listenForSignals()
  const run = openRun(command, quotas, modelsDir, lock, interrupts.signal)
  const finish = (exitCode: number, message?: string) => {
    const seconds = (performance.now() - startedMs) / 1000
    run.journal.emit({ event: 'run.done', exitCode, seconds, ...(message === undefined ? {} : { message }) })
    return exitCode
  }
  try {
    const dryRun = command.dryRun ? { dryRun: true } : {}
    run.journal.emit({
      event: 'run.start',
      modelsDir,
      jobs: command.jobs,
      version: packageVersion(),
      ...dryRun,
    })
    await body(run)
    return finish(0)
  } catch (error) {
    if (!(error instanceof TrainerError)) process.stderr.write(`${stackOf(error)}\n`)
    return finish(exitCodeOf(error), messageOf(error))
  } finally {
    interrupts.close()
    run.journal.close()
    lock?.release()
  }
}

function openRun(
  command: Command,
  quotas: Quotas,
  modelsDir: string,
  lock: Lock | undefined,
  signal: AbortSignal,
): Run {
  const run: Run = {
    command,
    quotas,
    modelsDir,
    lockFd: lock?.fd,
    signal,
    published: new Map(),
    journal: new Journal(command.dryRun ? undefined : join(modelsDir, '.trainer'), event =>
      run.onEvent(event),
    ),
    onEvent: command.json ? printJson : printLine,
    onProgress: () => {},
  }
  return run
}

function printJson(event: TrainerEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

function printLine(event: TrainerEvent): void {
  if (event.level === 'debug') return
  const job = 'job' in event && event.job ? `${event.job}: ` : ''
  const level = event.level === 'info' ? '' : `${event.level.toUpperCase()} `
  process.stdout.write(`${event.time} ${level}${job}${describeEvent(event)}\n`)
}
