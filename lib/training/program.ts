import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { Job } from '../run.ts'
import { safePath } from '../system/programs.ts'
import { explainMisplaced } from './misplaced-words.ts'

/**
 * Check that the program of a job's training is there, before anything is deleted for one that cannot begin. That of the
 * command that accepts is warned of: hours later no model would be accepted.
 *
 * @throws {TrainerError} `training-failed`: it may be on a disk that is away
 */
export function assertPrograms(job: Job): void {
  const { name, quota, run, emit } = job
  const { dir } = run.quotas
  const judge = missingProgram(job, quota.accept?.command)
  if (judge !== undefined) {
    const message = `there is no program ${judge}, which jobs.${name}.accept.command of quotas.json names: without it no model is accepted`
    emit({ event: 'warning', job: name, message })
  }
  const program = missingProgram(job, quota.train)
  if (program === undefined) return
  const remedy = explainMisplaced(quota.train, dir) ?? 'install it, mount its disk, or mend its name'
  throw new TrainerError(
    'training-failed',
    `Cannot start ${name}: there is no program ${program}, which jobs.${name}.train of quotas.json names; ${remedy}`,
    { sparesCheckpoint: true },
  )
}

/** The program of a command, if it is nowhere on the PATH of that. */
function missingProgram({ quota, run }: Job, [program]: string[] = []): string | undefined {
  const path = quota.env.PATH ?? safePath
  if (program === undefined || /[{}]/.test(`${program}${path}`)) return undefined // a placeholder is filled in later
  const { dir } = run.quotas
  const paths = program.includes('/')
    ? [resolve(dir, program)]
    : path.split(':').map(folder => resolve(dir, folder, program))
  return paths.some(it => existsSync(it)) ? undefined : program
}
