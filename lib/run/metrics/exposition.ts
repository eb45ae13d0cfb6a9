import { createRequire } from 'node:module'
import { type JobName, jobNames } from '../../quotas.ts'
import { whereabouts } from '../../system/whereabouts.ts'

const require = createRequire(import.meta.url)

const PREFIX = 'ransomeye_trainer_'

/** The label is not `job`: Prometheus gives that name to its targets, and would rename ours. */
const LABEL = 'model'

/** Every metric by its name behind the prefix, with its help; one that ends in `_total` is a counter. */
const families = {
  usage_bytes: 'Bytes charged to the quota at the last measurement: models, checkpoints and temporary files.',
  limit_bytes: 'The quota, or the size of the filesystem that enforces it.',
  free_bytes: 'Bytes that can still be written to the disk.',
  pruned_bytes_total: 'Bytes of deleted checkpoints and temporary files.',
  progress_ratio: 'How far the running training says it is, from 0 to 1; absent if it does not say.',
  progress_left_seconds: 'Seconds that it has left by its pace so far; absent if that is unknown.',
  freezes_total: 'How often a training was paused to count what it uses, and to prune.',
  model_bytes: 'Bytes of the published model with its external data; 0 if none is published.',
  model_generation: 'Number of the current generation; absent where nothing is published as one.',
  model_refused: '1 if the last model that was trained was not accepted, else 0.',
  model_trained_timestamp_seconds: 'When the published model was trained; absent if it was not trained here.',
  run_in_progress: '1 while a run trains, else 0; stays 1 if it is killed.',
  run_start_timestamp_seconds: 'When the last run began.',
  last_success_timestamp_seconds: 'When a run that was to train last ended with exit code 0.',
  last_duration_seconds: 'How long the last run that was to train took.',
  last_exit_code: 'Exit code of the last run that was to train, also if it could not start.',
  update_timestamp_seconds:
    'When these figures were written; while a run trains or waits at least once a minute.',
}

export type Family = keyof typeof families

/** Figures by name, without the prefix: `usage_bytes{model="core"}`. */
type Samples = Map<string, number>

/** Name a figure of the whole trainer, or of one job. */
export function nameSample(family: Family, job?: JobName): string {
  return job === undefined ? family : `${family}{${LABEL}="${job}"}`
}

const sampleLine = new RegExp(String.raw`^(${PREFIX}(\w+(?:\{${LABEL}="\w+"\})?)) (\S+)$`, 'gm')

/** Read the samples of a file that {@link renderMetrics} has written; skip every other line. */
export function parseMetrics(text: string): Samples {
  const samples = Array.from(
    text.matchAll(sampleLine),
    ([, , name, value]) => [name!, Number(value)] as const,
  )
  return new Map(samples.filter(([, value]) => value >= 0 && value < Infinity))
}

/** Write the samples in Prometheus's text format, and which machine they are of: whoever writes them is the last run. */
export async function renderMetrics(samples: Samples): Promise<string> {
  const { Counter, Gauge, Registry } = loadPrometheus()
  const registry = new Registry()
  for (const [family, help] of Object.entries(families) as [Family, string][]) {
    const options = { name: `${PREFIX}${family}`, help, labelNames: [LABEL], registers: [registry] }
    const metric = family.endsWith('_total') ? new Counter(options) : new Gauge(options)
    for (const job of [undefined, ...jobNames]) {
      const value = samples.get(nameSample(family, job))
      if (value !== undefined) metric.inc(job ? { [LABEL]: job } : {}, value)
    }
  }
  const place = new Gauge({
    name: `${PREFIX}run_info`,
    help: 'Always 1; where the last run was: its machine or node, and its Slurm job, if it was one.',
    labelNames: ['host', 'slurm_job'],
    registers: [registry],
  })
  const { host, slurmJob } = whereabouts()
  place.set({ host, slurm_job: String(slurmJob ?? '') }, 1)
  return registry.metrics()
}

/**
 * Load the three classes that are needed from their own files: the whole library, with its metrics of Node.js and its
 * push gateway, takes 40 ms, and a boot with nothing to do would wait for it.
 */
export function loadPrometheus(): Pick<typeof import('prom-client'), 'Counter' | 'Gauge' | 'Registry'> {
  return {
    Counter: require('prom-client/lib/counter.js'),
    Gauge: require('prom-client/lib/gauge.js'),
    Registry: require('prom-client/lib/registry.js'),
  }
}
