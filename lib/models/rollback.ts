import { TrainerError } from '../errors.ts'
import type { JobName } from '../quotas.ts'
import { storageError } from '../system/durable.ts'
import { makeCurrent } from './commit.ts'
import {
  currentGeneration,
  type Generation,
  generationOf,
  listGenerations,
  rolledBackFrom,
} from './generations.ts'
import { isWhole, readManifest } from './manifest.ts'
import { ownModels } from './own-models.ts'
import { assertPlaceable } from './put-flat-names.ts'
import { dropGeneration, formerGenerations } from './retire.ts'
import { verifyGeneration } from './verify.ts'

/**
 * Return the generation that an operator names by its number.
 *
 * @throws {TrainerError} `usage`, with those that there are
 */
export function chooseGeneration(job: JobName, jobDir: string, text: string): Generation {
  const there = listGenerations(jobDir).filter(isWhole)
  const chosen = there.find(({ number }) => String(number) === text)
  if (chosen) return chosen
  const numbers = there.map(({ number }) => number).join(', ') || 'none'
  throw new TrainerError('usage', `${job} has no generation ${text}; there are: ${numbers}`)
}

/**
 * Return the generation that an operator means by going back: the last one that was current before. One that the job was
 * rolled back from is none.
 *
 * @throws {TrainerError} `training-failed` if none is kept
 */
export function formerGeneration(job: JobName, jobDir: string): Generation {
  const current = currentGeneration(jobDir)
  const former = current ? formerGenerations(jobDir, current) : []
  const last = former.map(number => generationOf(jobDir, number)).find(isWhole)
  if (last) return last
  const others = listGenerations(jobDir).filter(it => it.number !== current?.number && isWhole(it))
  const remedy = others.length
    ? `to another one: --to ${others.map(({ number }) => number).join(' or ')}`
    : 'keepGenerations says how many are'
  throw new TrainerError(
    'training-failed',
    `Cannot roll back ${job}: no generation before the current one is kept in ${jobDir}; ${remedy}`,
  )
}

/**
 * Make another generation current, as one step, if {@link assertReturnable} has nothing against it.
 *
 * @returns the number of the generation that was current
 * @throws {TrainerError} as {@link assertReturnable}; `storage`. What is current has not changed then, or it is the other
 * generation, of which some flat names are missing until the next start
 */
export async function rollBack(job: JobName, jobDir: string, to: Generation): Promise<number> {
  const from = await assertReturnable(job, jobDir, to)
  try {
    await makeCurrent(jobDir, to.number)
    return from.number
  } catch (cause) {
    throw storageError(`Cannot make generation ${to.number} of ${job} current`, cause)
  }
}

/**
 * Assert that another generation can be made current: each of its files has the content that was published, and its flat
 * names take the place of nothing that is in no generation. Reads every file whole.
 *
 * @returns the generation that is current
 * @throws {TrainerError} `usage` if it is that one; `training-failed` if it is damaged; `storage` if its flat names have not
 * their place
 */
export async function assertReturnable(job: JobName, jobDir: string, to: Generation): Promise<Generation> {
  const from = currentGeneration(jobDir)
  if (!from || from.number === to.number) {
    throw new TrainerError(
      'usage',
      `Cannot roll back ${job}: generation ${to.number} is current; name another by --to`,
    )
  }
  const [own] = (await ownModels(jobDir, to)).models
  if (own) {
    throw new TrainerError(
      'storage',
      `Cannot roll back ${job}: ${own.path} is an operator's own model that no generation has yet; ` +
        'start a run once, which makes one of it, or move it away',
    )
  }
  await assertAsPublished(job, to)
  assertPlaceable(jobDir, readManifest(to.dir)!)
  return from
}

/** @throws {TrainerError} `training-failed` with the first difference */
async function assertAsPublished(job: JobName, generation: Generation): Promise<void> {
  const { differences } = await verifyGeneration(generation)
  const [difference] = differences
  if (!difference) return
  const { path, reason } = difference
  const message = `Cannot roll back ${job} to generation ${generation.number}: its ${path} ${reason}`
  throw new TrainerError('training-failed', message)
}

/**
 * Forget what a job was rolled back from: those generations go, and the next training is published as any other.
 *
 * @returns their numbers
 * @throws {TrainerError} `storage`
 */
export async function release(job: JobName, jobDir: string): Promise<number[]> {
  const newer = rolledBackFrom(jobDir)
  try {
    for (const { number } of newer) await dropGeneration(jobDir, generationOf(jobDir, number))
  } catch (cause) {
    throw storageError(`Cannot remove the generations that ${job} was rolled back from`, cause)
  }
  return newer.map(({ number }) => number)
}
