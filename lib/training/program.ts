import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { Job } from '../run.ts'
import { safePath } from '../system/programs.ts'
import { explainMisplaced } from './misplaced-words.ts'

/**
 * Check that the program of a job's training is there, before anything is deleted for one that cannot begin.
 *
 * @throws {TrainerError} `training-failed`: it may be on a disk that is away
 */
export function assertProgram({ name, quota, run }: Job): void {
  const { dir } = run.quotas
  const program = quota.train[0]!
  const path = quota.env.PATH ?? safePath
  if (/[{}]/.test(`${program}${path}`)) return // a placeholder is filled in later
  const folders = path.split(':')
  const paths = program.includes('/') ? [resolve(dir, program)] : folders.map(it => join(it, program))
  if (paths.some(it => existsSync(it))) return
  const remedy = explainMisplaced(quota.train, dir) ?? 'install it, mount its disk, or mend its name'
  throw new TrainerError(
    'training-failed',
    `Cannot start ${name}: there is no program ${program}, which jobs.${name}.train of quotas.json names; ${remedy}`,
    { sparesCheckpoint: true },
  )
}
