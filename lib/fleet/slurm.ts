import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { isErrno, messageOf, TrainerError } from '../errors.ts'

/** A job as Slurm has it. */
export type SlurmJob = {
  id: number
  /** Slurm's word, such as `RUNNING`. */
  state: string
  /** As of a process: exit code and signal. */
  exitCode: number
  signal: number
  restarts: number
  nodes: string
  /** Why it waits, or how it ended; `None` for neither. */
  reason: string
  /** Its beginning. */
  name: string
}

/** The fields that `squeue` is asked for; it cuts each value to its width, in bytes. */
const columns = {
  JobID: 12,
  State: 20,
  exit_code: 12,
  RestartCnt: 8,
  NodeList: 64,
  Reason: 160,
  Name: 64,
} as const

/** Longest wait for an answer: a controller with too many jobs lets `sbatch` wait without a word. */
const TIMEOUT_MS = 60_000

/** The variables that a client of Slurm, and a job that it submits, get from our environment: none of another job's. */
const inherited = /^(PATH|HOME|USER|LOGNAME|TZ|LANG|LC_[A-Z]+|SLURM_CONF)$/

/** The controller gave no answer: nothing is known, and nothing may be concluded of any job. */
export class NoAnswer extends Error {
  override readonly name = 'NoAnswer'
}

/** sbatch's own words for a controller that is away; anything else is a refusal. */
const away = /Unable to contact|timed out|Connection refused|Zero Bytes were transmitted|temporarily/i

/**
 * Submit a batch script.
 *
 * @param options of sbatch
 * @returns the id of the job; undefined with `--test-only`
 * @throws {TrainerError} `config` with Slurm's line if it refuses, or there is no Slurm
 * @throws {NoAnswer} it may have been accepted or not
 */
export async function submit(script: string, options: string[]): Promise<number> {
  const answer = await client('sbatch', ['--parsable', ...options], script)
  const { exitCode, stdout, stderr, isTimedOut } = answer
  const id = Number(/^(\d+)/.exec(stdout)?.[1])
  if (exitCode === 0 && (id > 0 || options.includes('--test-only'))) return id
  if (isTimedOut || away.test(stderr)) throw new NoAnswer(lastLine(stderr))
  throw new TrainerError('config', `Slurm refuses it: ${refusalIn(stderr, options)}`)
}

/** Slurm's line, and what it does not say: which of a job's options it means that no key of the fleet file is about. */
function refusalIn(stderr: string, options: string[]): string {
  const tooLarge = /Temporary disk specification can not be satisfied/.exec(stderr)?.[0]
  if (!tooLarge) return lastLine(stderr)
  const asked = options.findLast(option => option.startsWith('--tmp='))
  return `${tooLarge}: ${asked} was asked for, the largest of its quotas; raise the nodes' TmpDisk in slurm.conf`
}

/**
 * Ask for jobs, all at once. One that is not in the answer has left the queue.
 *
 * @throws {NoAnswer}
 */
export async function listJobs(ids: number[]): Promise<Map<number, SlurmJob>> {
  const format = Object.entries(columns).map(([name, width]) => `${name}:${width}`)
  const { exitCode, stdout, stderr } = await client('squeue', [
    ...['--noheader', '--states=all', `--jobs=${ids.join(',')}`],
    `--Format=${format.join(',')}`,
  ])
  // Said only when a single one is asked for.
  if (exitCode !== 0 && !/Invalid job id/.test(stderr)) throw new NoAnswer(lastLine(stderr))
  const jobs = stdout.split('\n').flatMap(line => (line.trim() ? [parseJob(line)] : []))
  return new Map(jobs.map(job => [job.id, job]))
}

function parseJob(line: string): SlurmJob {
  const ends = Object.values(columns).map((_, index, widths) => sum(widths.slice(0, index + 1)))
  const [id, state, status, restarts, nodes, reason, name] = Object.values(columns).map((width, index) =>
    line.slice(ends[index]! - width, ends[index]).trim(),
  ) as [string, string, string, string, string, string, string]
  return {
    id: Number(id),
    state,
    ...decodeStatus(Number(status)),
    restarts: Number(restarts),
    nodes,
    reason,
    name,
  }
}

/** Say why a job waits in Slurm's words, and where somebody has to look, where. */
export function describeReason(reason: string): string {
  const isOfNodes = /\b(DOWN|DRAINED)\b|ReqNodeNotAvail|UnavailableNodes/.test(reason)
  const cut = Buffer.byteLength(reason) >= columns.Reason - 4 ? '…' : ''
  return `${reason}${cut}${isOfNodes ? ' (see sinfo -R)' : ''}`
}

function sum(widths: number[]): number {
  return widths.reduce((total, width) => total + width, 0)
}

/** The status that wait(2) gives. */
function decodeStatus(status: number): { exitCode: number; signal: number } {
  const signal = status & 127
  return { exitCode: signal ? 0 : (status >> 8) & 255, signal }
}

/** Does the job have this name, as far as squeue tells it? Ids begin anew when a cluster is made anew. */
export function isNamed({ name }: SlurmJob, wanted: string): boolean {
  if (Buffer.byteLength(name) < columns.Name - 4) return name === wanted.trim()
  // Cut, perhaps within a letter.
  return wanted.trim().startsWith(name.replace(/\ufffd+$/, ''))
}

/**
 * Ask Slurm's accounting, where there is one, for a job that has left the queue.
 *
 * @returns undefined where there is none, or no such job
 */
export async function findInAccounting(id: number): Promise<SlurmJob | undefined> {
  const { exitCode, stdout } = await client('sacct', [
    ...['--noheader', '--allocations', '--parsable2', `--jobs=${id}`],
    '--format=State,ExitCode,NodeList',
  ])
  const [state = '', code = '', nodes = ''] = stdout.split('\n')[0]!.trim().split('|')
  const [own, signal] = code.split(':').map(Number)
  if (exitCode !== 0 || !state || own === undefined || signal === undefined) return undefined
  // The state of a cancelled job is followed by who cancelled it.
  return {
    id,
    state: state.split(' ')[0]!,
    exitCode: own,
    signal,
    restarts: 0,
    nodes,
    reason: 'None',
    name: '',
  }
}

/**
 * End jobs: SIGTERM to each of their processes, and SIGKILL to those that are left after Slurm's KillWait.
 *
 * @throws {NoAnswer}
 */
export async function cancelJobs(ids: number[]): Promise<void> {
  const { exitCode, stderr } = await client('scancel', ids.map(String))
  // One that has ended meanwhile is no error.
  if (exitCode !== 0 && !/Invalid job id|already completing or completed/.test(stderr))
    throw new NoAnswer(lastLine(stderr))
}

type Answer = { exitCode: number | null; stdout: string; stderr: string; isTimedOut: boolean }

/**
 * Run one of Slurm's programs, as the operator's PATH has it. Without a shell: bash takes itself for a remote one when its
 * input comes from us, and runs ~/.bashrc, which costs more than all the rest.
 *
 * @throws {TrainerError} `config` if there is none
 */
async function client(program: string, args: string[], input = ''): Promise<Answer> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => inherited.test(name)))
  // In a session of its own: Ctrl-C must not end it between a job's beginning and its id.
  const child = spawn(program, args, { env, detached: true, stdio: 'pipe' })
  const said = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', text => (said[name] += text))
  child.stdin.on('error', () => {}).end(input) // one that refuses at once reads nothing
  let isTimedOut = false
  const timer = setTimeout(() => {
    isTimedOut = true
    child.kill('SIGKILL')
  }, TIMEOUT_MS)
  try {
    const [exitCode] = await once(child, 'close')
    return { exitCode, ...said, isTimedOut }
  } catch (cause) {
    const reason = isErrno(cause, 'ENOENT') ? "it is not on this machine's PATH" : messageOf(cause)
    const remedy = "run this where Slurm's clients are installed"
    throw new TrainerError('config', `Cannot run ${program}: ${reason}; ${remedy}`, { cause })
  } finally {
    clearTimeout(timer)
  }
}

function lastLine(text: string): string {
  if (!text.trim()) return 'it said nothing'
  return (text.trim().split('\n').at(-1) ?? '').replace(/^\w+: (error: )?/, '')
}
