import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { constants as system } from 'node:os'
import { isOwnExitCode } from '../errors.ts'
import { escapeText, quoteWord } from '../text.ts'
import { RESTARTED } from './batch-script.ts'
import type { SlurmJob } from './slurm.ts'

/** How a site ended: one of this project's exit codes, and why. */
export type Outcome = { exitCode: number; message: string }

/** The evidence for an outcome, beside Slurm's own words. */
export type Evidence = {
  jobId: number
  /** The end of the run in the site's journal, if it is there. */
  done: Outcome | undefined
  /** Has its run told its begin there? */
  hasBegun: boolean
  log: string
  timeMinutes: number | undefined
}

/** The states in which a job is still to run or runs; in any other that is known it has ended. */
const ended = [
  ...['BOOT_FAIL', 'CANCELLED', 'COMPLETED', 'DEADLINE', 'FAILED', 'NODE_FAIL'],
  ...['OUT_OF_MEMORY', 'PREEMPTED', 'REVOKED', 'TIMEOUT'],
]

/** Slurm's signal of a job whose output file could not be made on the node. */
const NO_OUTPUT = 53

/** Has the job ended, in Slurm's eyes? */
export function hasEnded({ state }: SlurmJob): boolean {
  return ended.includes(state)
}

/** Say what keeps a job in the queue that will not start by itself; undefined if nothing does. */
export function obstacleOf({ id, state, reason, restarts }: SlurmJob): Outcome | undefined {
  if (/held|JobHoldMaxRequeue/i.test(reason) || /HOLD|SPECIAL_EXIT/.test(state)) {
    const remedy = `scontrol release ${id}, or scancel ${id}`
    return { exitCode: 75, message: `Slurm holds its job ${id} (${reason}); ${remedy}` }
  }
  if (restarts > 0 && state === 'PENDING') {
    return { exitCode: RESTARTED, message: `somebody has put its job ${id} back into the queue; ${REFUSES}` }
  }
  return undefined
}

const REFUSES = 'it trains once: submit it anew when it has left the queue'

/** How a job that has ended in Slurm's eyes came out. Slurm's word decides; the journal and the log add the reason. */
export function judge(job: SlurmJob, evidence: Evidence): Outcome {
  const { state, exitCode, signal, nodes } = job
  const { jobId, done, log, timeMinutes } = evidence
  switch (state) {
    case 'COMPLETED':
      return done ?? judgeWithoutEnd(nodes, evidence)
    case 'TIMEOUT':
    case 'DEADLINE': {
      const limit = timeMinutes === undefined ? 'that of its partition' : `${timeMinutes} min`
      const remedy = `${timeMinutes === undefined ? 'set' : 'raise'} slurm.timeMinutes`
      return { exitCode: 1, message: `it ran into its time limit, ${limit}, on ${nodes}; ${remedy}` }
    }
    case 'NODE_FAIL':
    case 'BOOT_FAIL': {
      const risk = 'its training may still run there and hold the lock; not restarted'
      return { exitCode: 75, message: `node ${nodes} is lost; ${risk}` }
    }
    case 'PREEMPTED':
    case 'REVOKED':
      return { exitCode: 75, message: `Slurm took its node away (${state}); submit it anew` }
    case 'OUT_OF_MEMORY':
      return { exitCode: 1, message: `it was killed on ${nodes} for too much memory; ask for more by --mem` }
    case 'CANCELLED': {
      const reason = done?.message ? `: ${done.message}` : ''
      return { exitCode: 143, message: `its job ${jobId} was cancelled${reason}` }
    }
  }
  if (signal === NO_OUTPUT) {
    return {
      exitCode: 3,
      message: `${nodes} cannot write its output, ${log}; make that folder writable there`,
    }
  }
  if (signal) {
    const cause = signal === system.signals.SIGKILL ? ', perhaps for too much memory' : ''
    return { exitCode: 1, message: `it was killed by ${nameOfSignal(signal)} on ${nodes}${cause}` }
  }
  const code = isOwnExitCode(exitCode) ? exitCode : exitCode === 126 || exitCode === 127 ? 78 : 1
  const reason = done?.exitCode === exitCode ? done.message : lastWordsOf(log)
  return {
    exitCode: code,
    message: reason || `it ended with exit code ${exitCode} on ${nodes} without a word`,
  }
}

/** How a job came out that Slurm no longer knows: by the end in its journal, else nobody can tell. */
export function judgeGone({ jobId, done, log }: Evidence): Outcome {
  if (done) return done
  const lastWords = lastWordsOf(log)
  const clues = `the log ${quoteWord(log)}, the site's .trainer/events.jsonl and sacct -j ${jobId}`
  return {
    exitCode: 1,
    message:
      `unknown: its job ${jobId} has left the queue without an end` +
      `${lastWords && `; its last words were "${lastWords}"`}; look at ${clues}`,
  }
}

/** A job went well in Slurm's eyes, but every run tells its end: one that tells none has trained nothing that is known. */
function judgeWithoutEnd(nodes: string, { jobId, hasBegun, log }: Evidence): Outcome {
  const claim = `Slurm says its job ${jobId} is done on ${nodes}`
  const message = hasBegun
    ? `${claim}, but its run has told no end; look at the log ${quoteWord(log)} and the site's .trainer/events.jsonl`
    : `${claim}, but its run never began: see slurmd's log on ${nodes} and sinfo -R`
  return { exitCode: 75, message }
}

function nameOfSignal(signal: number): string {
  return Object.entries(system.signals).find(([, number]) => number === signal)?.[0] ?? `signal ${signal}`
}

/** Read the job's last line, without our own name; empty if it cannot be read. */
function lastWordsOf(log: string): string {
  try {
    const fd = openSync(log, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      const { size } = fstatSync(fd)
      const end = Buffer.alloc(Math.min(size, 4096))
      const length = readSync(fd, end, 0, end.length, size - end.length)
      const line = end.toString('utf8', 0, length).trimEnd().split('\n').at(-1)!
      return escapeText(line.replace(/^ransomeye-trainer: /, ''))
    } finally {
      closeSync(fd)
    }
  } catch {
    return ''
  }
}
