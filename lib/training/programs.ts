import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { Job } from '../run.ts'
import { safePath } from '../system/programs.ts'
import { explainMisplaced } from './misplaced-words.ts'

/**
 * Check that the programs of a job's commands are there, before anything is deleted for a training that cannot begin.
 *
 * @throws {TrainerError} `training-failed`: it may be on a disk that is away
 */
export function assertPrograms({ name, quota, run }: Job): void {
  const { dir } = run.quotas
  const folders = (quota.env.PATH ?? safePath).split(':')
  for (const [key, command] of [
    ['train', quota.train],
    ['accept.command', quota.accept?.command ?? []],
  ] as const) {
    const [program] = command
    if (program === undefined || /[{}]/.test(program)) continue // a placeholder is filled in later
    const paths = program.includes('/') ? [resolve(dir, program)] : folders.map(it => join(it, program))
    if (paths.some(path => existsSync(path))) continue
    const remedy = explainMisplaced([...command], dir) ?? 'install it, mount its disk, or mend its name'
    throw new TrainerError(
      'training-failed',
      `Cannot start ${name}: there is no program ${program}, which jobs.${name}.${key} of quotas.json names; ${remedy}`,
      { sparesCheckpoint: true },
    )
  }
}
