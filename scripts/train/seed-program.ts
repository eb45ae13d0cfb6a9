import { resolve } from 'node:path'
import { TrainerError } from '../../lib/errors.ts'
import { type Option, readOptions } from '../../lib/settings/options.ts'
import { runScript } from '../../lib/settings/script.ts'
import { nameCommand } from '../../lib/system/start-command.ts'
import { type SeedJob, type SeedRequest, trainSeedModel } from './seed-training.ts'

const defaultSeed = 24
const defaultEpochs = 20

const options = {
  'output-dir': { type: 'string', value: 'DIR', help: 'folder for checkpoints, the model and its metadata' },
  'max-disk-mb': { type: 'string', value: 'N', help: 'the most bytes in that folder, in MiB' },
  seed: { type: 'string', value: 'N', help: `seed of the random numbers (default: ${defaultSeed})` },
  epochs: { type: 'string', value: 'N', help: `passes over the training data (default: ${defaultEpochs})` },
} as const satisfies Record<string, Option>

/**
 * Run the program that trains `job`.
 *
 * @returns the exit status
 */
export function runSeedTrainer(job: SeedJob): Promise<number> {
  return runScript(async () => {
    const request = readRequest(process.argv.slice(2), job)
    if (typeof request === 'string') console.log(request)
    else await trainSeedModel(job, request, line => console.log(line), tell)
    return 0
  })
}

/** For the orchestrator's bar; the lines of the epochs tell a person as much. */
function tell(share: number): void {
  if (process.env.RANSOMEYE_JOB) console.log(`RANSOMEYE_PROGRESS ${share.toFixed(3)}`)
}

function readRequest(args: string[], job: SeedJob): SeedRequest | string {
  const name = `scripts/train/${job.name}.ts`
  const example = '--max-disk-mb 200 --output-dir /tmp/seed'
  const read = readOptions(args, { name, summary: `Train the seed model of ${job.name}.`, options, example })
  if (typeof read === 'string') return read
  const { values } = read
  const refuse = (option: keyof typeof options, expected: string) => {
    const found = values[option] === undefined ? 'missing' : JSON.stringify(values[option])
    return new TrainerError(
      'usage',
      `--${option} is ${found}, expected ${expected}; see ${nameCommand(name, '--help')}`,
    )
  }
  const wholeNumber = (option: keyof typeof options, lowest: number, otherwise?: number) => {
    if (values[option] === undefined && otherwise !== undefined) return otherwise
    const number = /^\d{1,9}$/.test(values[option] ?? '') ? Number(values[option]) : Number.NaN
    if (number >= lowest) return number
    throw refuse(option, `a whole number from ${lowest} to 999999999`)
  }
  const outputDir = values['output-dir']
  if (outputDir === undefined) throw refuse('output-dir', 'a folder')
  return {
    outputDir: resolve(outputDir),
    maxDiskMb: wholeNumber('max-disk-mb', 1),
    seed: wholeNumber('seed', 0, defaultSeed),
    epochs: wholeNumber('epochs', 1, defaultEpochs),
  }
}
