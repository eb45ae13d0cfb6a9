import { join } from 'node:path'
import { TrainerError } from '../errors.ts'
import { readOwner } from './lock-holders.ts'
import { describeElsewhere, isElsewhere } from './lock-record.ts'

const LOOK_EVERY_MS = 5000

/**
 * Throw if another run has the lock that this one has taken. An NFS server gives away the lock of a machine that it has not
 * heard of for longer than its lease, and the machine is told nothing; what is in the folder is the other run's then.
 *
 * @throws {TrainerError} `locked`, naming that run
 */
export function assertOwnLock(stateDir: string): void {
  const owner = readOwner(stateDir)
  if (!owner || (owner.pid === process.pid && !isElsewhere(owner))) return
  const message = `This run has lost ${join(stateDir, 'lock')} to another: ${describeElsewhere(owner)}; it publishes nothing. Look why this machine was cut off from the folder for so long`
  throw new TrainerError('locked', message)
}

/** Aborted, with {@link assertOwnLock}'s reason, when another run has the lock before `over`. */
export function onLostLock(stateDir: string, over: AbortSignal): AbortSignal {
  const lost = new AbortController()
  const look = () => {
    try {
      assertOwnLock(stateDir)
    } catch (error) {
      lost.abort(error)
    }
  }
  const timer = setInterval(look, LOOK_EVERY_MS)
  over.addEventListener('abort', () => clearInterval(timer))
  return lost.signal
}
