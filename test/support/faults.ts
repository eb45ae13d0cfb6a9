import { execFileSync, spawnSync } from 'node:child_process'
import * as assert from 'uvu/assert'
import { isSweep } from './places.ts'
import { type Sandbox, sandbox } from './sandbox.ts'
import { type Ended, trace } from './traced-publisher.ts'

/** The set that is found published after a fault. */
export type Outcome = 'old' | 'new'
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
  /** Go through each of a call's times, or take one of them? */
  isWhole?: boolean
}

/**
 * Sweep over every counted call: at each of its times if it is whole, as in the sweep, else at one of them, of one call the
 * first, of others the last or one in between.
 *
 * @returns what was found at each point, by call
 */
export async function sweepAll(sweep: Sweep): Promise<[call: string, outcomes: Outcome[]][]> {
  const points = (sweep.isWhole ?? isSweep) ? undefined : await samplePoints(sweep)
  const calls = counted.filter(call => !points || points.has(call))
  const found: [string, Outcome[]][] = []
  const work = async () => {
    for (let call = calls.pop(); call; call = calls.pop()) {
      const times = points ? [points.get(call)!] : everyTime
      found.push([call, await sweepOne(call, times, sweep)])
    }
  }
  await Promise.all([work(), work(), work()])
  return found
}

const everyTime = Array.from({ length: MOST_CALLS }, (_, index) => index + 1)

/** One of the times of each call that the command makes when nothing goes wrong. */
async function samplePoints({ prepare, command }: Sweep): Promise<Map<string, number>> {
  await using box = await prepare()
  const { code, log } = await inject(box.dir, ['-e', `trace=${counted.join()}`], command)
  assert.is(code, 0)
  const calls = Array.from(log.matchAll(/^\d+ +(\w+)\(/gm), ([, call]) => call!)
  return new Map(
    [...new Set(calls)].map((call, index) => {
      const times = calls.filter(it => it === call).length
      return [call, [1, times, Math.ceil(times / 2)][index % 3]!]
    }),
  )
}

/** Run with a fault at one time of a call after the other, until a run gets through. */
async function sweepOne(
  call: string,
  times: number[],
  { fault, prepare, command, assess }: Sweep,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  for (const count of times) {
    await using box = await prepare()
    const tracing = ['-e', `trace=${call}`, '-e', `inject=${call}:${fault}:when=${count}`]
    const ended = await inject(box.dir, tracing, command)
    if (ended.code === 0) return outcomes
    outcomes.push(await assess(box, ended))
  }
  assert.ok(times.length < MOST_CALLS, `no run got through ${MOST_CALLS} times ${call}`)
  return outcomes
}

/** Run a command of test/support/publisher.ts for a job's folder under strace. */
export function inject(jobDir: string, tracing: string[], [command, ...names]: string[]): Promise<Ended> {
  return trace(tracing, [command!, jobDir, ...names])
}

/** Copy a folder as it is, with its times and links. */
export async function copyOf(template: Sandbox): Promise<Sandbox> {
  const box = await sandbox()
  execFileSync('cp', ['--archive', `${template.dir}/.`, box.dir])
  return box
}
