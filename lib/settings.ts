import { TrainerError } from './errors.ts'
import { type JobName, jobNames } from './quotas.ts'
import { didYouMean, type Option } from './settings/options.ts'

/** The options for the places of models and quotas. Every script that looks at them takes these. */
export const placeOptions = {
  'models-dir': {
    type: 'string',
    value: 'DIR',
    help: 'models and state (else RANSOMEYE_MODELS_DIR, modelsDir)',
  },
  quotas: { type: 'string', value: 'FILE', help: 'the quotas (default: quotas.json of this project)' },
} as const satisfies Record<string, Option>

/**
 * Return the jobs that are named, in the order in which they run. No name means all of them.
 *
 * @throws {TrainerError} `usage`
 */
export function chooseJobs(names: string[]): JobName[] {
  const unknown = names.find(name => !jobNames.some(job => job === name))
  if (unknown !== undefined) {
    const remedy = unknown.includes(',')
      ? `, separated by spaces: ${unknown.replaceAll(',', ' ')}`
      : didYouMean(unknown, jobNames)
    throw new TrainerError('usage', `Unknown job "${unknown}"; the jobs are ${jobNames.join(', ')}${remedy}`)
  }
  return jobNames.filter(job => !names.length || names.includes(job))
}
