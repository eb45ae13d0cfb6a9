import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { isSweep, programOf } from './places.ts'
import { type Sandbox, sandbox } from './sandbox.ts'

/** What is found published after a fault. */
export type Outcome = 'old' | 'new'
/** How a process ended in which a fault was made, and what strace has seen of it. */
export type Ended = { signal: string | null; code: number | null; stderr: string; log: string }
/** Judges a job's folder after a fault. */
export type Assess = (box: Sandbox, ended: Ended) => Promise<Outcome>

/** Calls that change the disk, which starting up does not make; the others are found by their path. */
const counted = ['fsync', 'rename', 'mkdir', 'link', 'symlink', 'unlink', 'rmdir', 'chmod', 'lchown']

export const canTrace = spawnSync('strace', ['-f', 'true']).status === 0

/** More than any of the sweeps has of one call. */
const MOST_CALLS = 1000

export type Sweep = {
  /** As strace's `inject` takes it: `signal=KILL`, `error=EIO`. */
  fault: string
  /** Makes the folder to work in, anew for each point. */
  prepare: () => Promise<Sandbox>
  /** A command of test/support/publisher.ts, without its folder. */
  command: string[]
  assess: Assess
  /** In a sample, the first point of each call and the distance to the next. */
  stride?: number
}

/**
 * Sweep over every counted call: in a sweep at each of its times, else at some.
 *
 * @returns what was found at each point, by call
 */
export async function sweepAll(sweep: Sweep): Promise<[call: string, outcomes: Outcome[]][]> {
  const sweeps = counted.map((call, index) => {
    const some = isSweep ? { first: 1, stride: 1 } : { first: 1 + (index % 2), stride: sweep.stride ?? 4 }
    return () => sweepOne(call, sweep, some)
  })
  const found: [string, Outcome[]][] = []
  const work = async () => {
    for (let next = sweeps.pop(); next; next = sweeps.pop()) found.push(await next())
  }
  await Promise.all([work(), work(), work()])
  return found
}

/** Run with a fault at the first such call, at the second, and so on, or at some, until one run gets through. */
async function sweepOne(
  call: string,
  { fault, prepare, command, assess }: Sweep,
  { first, stride }: { first: number; stride: number },
): Promise<[call: string, outcomes: Outcome[]]> {
  const outcomes: Outcome[] = []
  for (let count = first; count <= MOST_CALLS; count += stride) {
    await using box = await prepare()
    const ended = await inject(
      box.dir,
      ['-e', `trace=${call}`, '-e', `inject=${call}:${fault}:when=${count}`],
      command,
    )
    if (ended.code === 0) return [call, outcomes]
    outcomes.push(await assess(box, ended))
  }
  throw new Error(`no run got through ${MOST_CALLS} times ${call}`)
}

/** Run a command of test/support/publisher.ts for a job's folder under strace. */
export async function inject(
  jobDir: string,
  tracing: string[],
  [command, ...names]: string[],
): Promise<Ended> {
  await using logs = await sandbox()
  const log = logs.path('log')
  const program = [process.execPath, ...programOf('test/support/publisher.ts'), command!, jobDir, ...names]
  return await new Promise(resolve => {
    const argv = ['-f', '-y', '-qq', '-o', log, ...tracing, ...program]
    // One thread for files, so that the calls come in one order and have one count.
    const options = { env: { ...process.env, UV_THREADPOOL_SIZE: '1' } }
    const child = execFile('strace', argv, options, (_error, _stdout, stderr) => {
      resolve({ signal: child.signalCode, code: child.exitCode, stderr, log: readFileSync(log, 'utf8') })
    })
  })
}

/** Copy a folder as it is, with its times and links. */
export async function copyOf(template: Sandbox): Promise<Sandbox> {
  const box = await sandbox()
  execFileSync('cp', ['--archive', `${template.dir}/.`, box.dir])
  return box
}
