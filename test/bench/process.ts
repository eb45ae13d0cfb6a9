import { setTimeout as delay } from 'node:timers/promises'
import { readProc } from '../../lib/system/processes.ts'
import type { Ended, Started } from '../support/rig.ts'

/** The kernel counts processor time in hundredths of a second, see sysconf(3): _SC_CLK_TCK. */
const TICK_MS = 10

/** Processor time that a process has used so far. */
export function processorMs(pid: number): number {
  const stat = readProc(`${pid}/stat`)!
  // The name, in parentheses, may itself hold spaces and parentheses; utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return TICK_MS * (Number(fields[11]) + Number(fields[12]))
}

/**
 * The most memory that a process has held until its end, by the kernel's own account.
 *
 * @throws {Error} it fails
 */
export async function peakBytesOf(run: Started, signal: AbortSignal): Promise<number> {
  let peakKib = 0
  let ended: Ended | undefined
  const end = untilEnd(run, signal).then(it => (ended = it))
  while (!ended) {
    // Gone when the process is; the figure only grows.
    peakKib = Number(/VmHWM:\s+(\d+)/.exec(readProc(`${run.pid}/status`) ?? '')?.[1] ?? peakKib)
    await Promise.race([end, delay(20)])
  }
  if (ended.exitCode !== 0) throw new Error(`the run ended with ${ended.exitCode}: ${ended.stderr}`)
  return peakKib * 1024
}

/** Wait for the end of a run; end it on an interrupt. */
export async function untilEnd(run: Started, signal: AbortSignal): Promise<Ended> {
  const stop = () => run.child.kill('SIGTERM')
  signal.addEventListener('abort', stop, { once: true })
  const ended = await run.ended
  signal.removeEventListener('abort', stop)
  signal.throwIfAborted()
  return ended
}
