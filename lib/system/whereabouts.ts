import { hostname } from 'node:os'

/** Where a process runs: its machine, or on Slurm its node and its job. */
export type Whereabouts = { host: string; slurmJob?: number }

/** Tell where this process runs. */
export function whereabouts(): Whereabouts {
  const { SLURM_JOB_ID = '', SLURMD_NODENAME } = process.env
  return /^[1-9]\d*$/.test(SLURM_JOB_ID)
    ? { host: SLURMD_NODENAME || hostname(), slurmJob: Number(SLURM_JOB_ID) }
    : { host: hostname() }
}
