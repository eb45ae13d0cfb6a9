import { hostname } from 'node:os'
import { readProc } from '../system/processes.ts'

/** The content of a lock file: names the run for whoever finds the lock held. */
export type LockRecord = {
  pid: number
  host?: string | undefined
  /** Names one boot of one kernel, which containers share; see random(4). */
  bootId?: string | undefined
  slurmJob?: string | undefined
}

/** More than a record has. */
export const RECORD_BYTES = 1024

/** Line by line; the first is the pid alone, which is all that earlier versions wrote and read. */
export function formatRecord(): string {
  const job = process.env.SLURM_JOB_ID
  const bootId = ownBootId() // not told in some containers
  const lines = [String(process.pid), `host ${hostname()}`, ...(bootId ? [`boot ${bootId}`] : [])]
  if (job && /^\w{1,32}$/.test(job)) lines.push(`job ${job}`)
  return `${lines.join('\n')}\n`
}

/** @returns undefined for anything but a record, such as what an interrupted write has left */
export function parseRecord(text: string): LockRecord | undefined {
  const pid = Number.parseInt(text, 10)
  if (!(pid > 0)) return undefined
  const value = (name: string) => new RegExp(`^${name} ([\\w.-]+)$`, 'm').exec(text)?.[1]
  return { pid, host: value('host'), bootId: value('boot'), slurmJob: value('job') }
}

/**
 * Was it written on another machine, whose processes cannot be seen from here? By the name alone that cannot be told:
 * machines that were copied from one have the same. An earlier boot of this machine is another one too.
 */
export function isElsewhere({ bootId }: LockRecord): boolean {
  return bootId !== undefined && bootId !== ownBootId()
}

/** @example describeElsewhere(record) // "pid 17 on n2, Slurm job 4" */
export function describeElsewhere({ pid, host, slurmJob }: LockRecord): string {
  return `pid ${pid} on ${host ?? 'another machine'}${slurmJob ? `, Slurm job ${slurmJob}` : ''}`
}

function ownBootId(): string | undefined {
  return readProc('sys/kernel/random/boot_id')?.trim()
}
