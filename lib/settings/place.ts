import { resolve } from 'node:path'
import { TrainerError } from '../errors.ts'
import { type JobName, jobNames, type Quotas } from '../quotas.ts'
import { defaultQuotasFile, isPackaged, type Place } from '../system/start-command.ts'
import { chooseModelsDir } from './folders.ts'
import { didYouMean, type Option, type Values } from './options.ts'
import { readQuotas } from './quotas-file.ts'

/** The options for the places of models and quotas. Every script that looks at them takes these. */
export const placeOptions = {
  'models-dir': {
    type: 'string',
    value: 'DIR',
    help: 'models and state (else RANSOMEYE_MODELS_DIR, modelsDir)',
  },
  quotas: {
    type: 'string',
    value: 'FILE',
    help: `the quotas (default: ${isPackaged ? defaultQuotasFile : 'quotas.json of this project'})`,
  },
} as const satisfies Record<string, Option>

/** Return the absolute path of the quotas file that was named, or of this installation's own. */
export function chooseQuotasFile(values: Values<typeof placeOptions>): string {
  return resolve(values.quotas ?? defaultQuotasFile)
}

/**
 * Read the quotas and choose the models folder, without looking at the folder itself.
 *
 * @throws {TrainerError} `config` for the quotas, `usage` for a folder's name
 */
export function readPlace(values: Values<typeof placeOptions>): Place & { quotas: Quotas } {
  const quotasFile = chooseQuotasFile(values)
  const quotas = readQuotas(quotasFile)
  return { quotas, quotasFile, modelsDir: chooseModelsDir(values['models-dir'], quotas.modelsDir) }
}

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

/**
 * Return the one job that is named.
 *
 * @param example a command that names one, for the message
 * @throws {TrainerError} `usage`
 */
export function chooseOneJob(names: string[], example: string): JobName {
  const [job] = chooseJobs(names)
  if (job && names.length === 1) return job
  throw new TrainerError('usage', `Name one job, as in ${example}; the jobs are ${jobNames.join(', ')}`)
}
