import { realpathSync, statSync } from 'node:fs'
import { homedir, userInfo } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { accessRemedy } from '../system/owner.ts'
import { makeFolder, makeFolders, outOfInodes } from '../system/plain-file.ts'
import { unmountedAbove } from '../system/unmounted.ts'
import { quoteWord } from '../text.ts'
import { stateDirOf, volumesDirOf } from './layout.ts'

/** The system's models folder, unless an operator has chosen another. */
export const SYSTEM_MODELS_DIR = '/var/lib/ransomeye/models'

/** The user of RansomEye's services. */
export const SERVICE_USER = 'ransomeye'

/**
 * Choose the models folder: the one configured for this run, else the environment's, else the user's default, which is the
 * system's for root and for the services.
 *
 * @throws {TrainerError} `usage` for a name that is not UTF-8, and for a user without a home folder
 */
export function chooseModelsDir(fromCommand: string | undefined, fromQuotas: string | undefined): string {
  const chosen = fromCommand ?? (process.env.RANSOMEYE_MODELS_DIR || fromQuotas)
  // Node.js reads U+FFFD for a byte that is not UTF-8; the name would be another folder's.
  if (chosen?.includes('\ufffd'))
    throw new TrainerError(
      'usage',
      `The models folder ${chosen} has a name that is not UTF-8; choose another`,
    )
  if (chosen !== undefined) return resolve(chosen)
  if (process.getuid?.() === 0 || isServiceUser()) return SYSTEM_MODELS_DIR
  return join(process.env.XDG_STATE_HOME || join(homeOf(), '.local', 'state'), 'ransomeye', 'models')
}

function isServiceUser(): boolean {
  try {
    return userInfo().username === SERVICE_USER
  } catch {
    return false // this user is in no list of users
  }
}

function homeOf(): string {
  let home = ''
  try {
    home = homedir()
  } catch {
    // HOME is not set, and this user is in no list of users.
  }
  if (isAbsolute(home)) return home
  throw new TrainerError(
    'usage',
    `Cannot tell where the models are: user ${process.getuid?.()} has no home folder; name theirs: --models-dir DIR`,
  )
}

/**
 * Make the models folder and its state folder (0750) where they are missing, and resolve links above them.
 *
 * @param mustExist refuse a missing models folder: for a program that has nothing to do in a new one
 * @throws {TrainerError} `storage` if the folder cannot be used
 */
export function openModelsDir(path: string, dryRun: boolean, mustExist = false): string {
  try {
    if (mustExist && !statSync(path, { throwIfNoEntry: false })) {
      const away = unmountedAbove(path)
      const remedy = away === undefined ? '' : `mount ${quoteWord(away)}, where nothing is mounted, or `
      throw new TrainerError(
        'storage',
        `There is no models folder ${path}; ${remedy}name another by --models-dir`,
      )
    }
    if (!dryRun) makeFolders(path)
    const modelsDir = realpathSync(path)
    statSync(`${modelsDir}/.`) // fails unless it is a folder that this user may look into
    if (!dryRun) makeFolder(stateDirOf(modelsDir))
    return modelsDir
  } catch (cause) {
    if (dryRun && isErrno(cause, 'ENOENT')) return path
    if (cause instanceof TrainerError) throw cause
    const message = `Cannot use the models folder ${path}: ${messageOf(cause)}; ${remedyFor(cause, path)}`
    throw new TrainerError('storage', message, { cause })
  }
}

/** Name what would help: another folder does only where this one was a wrong choice. */
function remedyFor(cause: unknown, path: string): string {
  if (isErrno(cause, 'ENOSPC', 'EDQUOT'))
    return outOfInodes(cause, path) ?? 'the disk is full: free some space on it'
  const other = 'choose another: --models-dir DIR'
  const away = unmountedAbove(path)
  if (away !== undefined)
    return `nothing is mounted on ${away}: mount it (mount ${quoteWord(away)}), or ${other}`
  // Read-only it also is for a service that was made for a folder on a disk that is away.
  if (isErrno(cause, 'EROFS', 'ENOENT')) return `mount its disk, writable, or ${other}`
  return isErrno(cause, 'EACCES') ? `${accessRemedy(path, volumesDirOf(path))}, or ${other}` : other
}
