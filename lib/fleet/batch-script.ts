import { basename, join } from 'node:path'
import { TrainerError } from '../errors.ts'
import { jobNames, type Quotas } from '../quotas.ts'
import { stateDirOf } from '../settings/layout.ts'
import type { Fleet, Site } from './fleet-file.ts'

/** A batch job with this exit code was put back into the queue by somebody: it has trained nothing. */
export const RESTARTED = 75

/** The name of a site's jobs: Slurm runs no two jobs of one name and user at once. */
export function jobNameOf({ name }: Site): string {
  return `ransomeye:${name}`
}

/** The file for the output of a site's job; the next job replaces it. */
export function logOf({ modelsDir }: Site): string {
  return join(stateDirOf(modelsDir), 'slurm.log')
}

/**
 * The script that trains a site on its node. Its exit code is the run's.
 *
 * A job that Slurm starts again refuses: its first start may still train on a node that only seems to be lost.
 */
export function batchScript({ file, project, node, scratch }: Fleet, site: Site, retrain: boolean): string {
  const args = [
    ...['--models-dir', site.modelsDir, '--quotas', site.quotasFile],
    ...(scratch === undefined ? [] : ['--scratch', scratch]),
    ...(retrain ? ['--retrain'] : []),
  ]
  // In the words that name its key: its job's last line is why a site has failed.
  const missing = (key: string, path: string) =>
    `echo ${quote(`${key} ${path}`)}" is not on \${SLURMD_NODENAME:-this node}; see "${quote(`${key} in ${basename(file)}`)} >&2`
  return `#!/bin/bash
if [ "\${SLURM_RESTART_COUNT:-0}" != 0 ]; then
  echo "Slurm has started this job again; it trains once, so submit it anew" >&2
  exit ${RESTARTED}
fi
if ! cd ${quote(project)} || ! [[ -e tasks.js || -e tasks.ts ]]; then
  ${missing('project', project)}
  exit 3
fi
if ! [[ -f ${quote(node)} && -x ${quote(node)} ]]; then
  ${missing('node', node)}
  exit 78
fi
# An installation has plain JavaScript, a clone has none.
if [ -e tasks.js ]; then set -- tasks.js; else set -- --import tsx tasks.ts; fi
exec ${quote(node)} "$@" ${args.map(quote).join(' ')}
`
}

/**
 * The options of sbatch for a site's job. Those of the fleet file come first, so that they cannot undo what the job
 * relies on.
 *
 * @throws {TrainerError} `config` if its log's name would mean something else to Slurm
 */
export function batchOptions({ slurm }: Fleet, site: Site, quotas: Quotas): string[] {
  const { partition, account, qos, gres, licenses, timeMinutes, options } = slurm
  const given = { partition, account, qos, gres, licenses, time: timeMinutes }
  const log = logOf(site)
  if (log.includes('\\')) {
    throw new TrainerError(
      'config',
      `Slurm takes no \\ in the name of a log: move the models folder ${site.modelsDir}`,
    )
  }
  return [
    ...options,
    ...Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}=${value}`])),
    `--job-name=${jobNameOf(site)}`,
    '--nodes=1',
    // It reserves nothing, but keeps the job from a node that could never hold it.
    `--tmp=${Math.max(...jobNames.map(job => quotas.jobs[job].maxDiskMb))}M`,
    `--output=${log.replaceAll('%', '%%')}`,
    '--open-mode=truncate',
    // Slurm starts a job elsewhere while its first start still trains on a node that cannot be reached.
    '--no-requeue',
    '--dependency=singleton',
    // A folder that is missing on the node would not fail the job, but move it to /tmp.
    '--chdir=/',
    '--export=ALL',
  ]
}

/** One word of the script: what is in quotes no shell changes. */
function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
