import { TrainerError } from '../../lib/errors.ts'

/** The error of an action that must fail in a way that an operator can act on. */
export async function failure(action: () => Promise<unknown>): Promise<TrainerError> {
  try {
    await action()
  } catch (error) {
    if (error instanceof TrainerError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}
