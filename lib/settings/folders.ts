import { realpathSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { stateDirOf } from '../layout.ts'
import { accessRemedy } from '../system/owner.ts'
import { makeFolder, makeFolders, outOfInodes } from '../system/plain-file.ts'

/** Where the system's models are unless an operator chose another folder. */
export const SYSTEM_MODELS_DIR = '/var/lib/ransomeye/models'

/**
 * Where models are kept: as configured for this run, else the environment's, else the user's default.
 *
 * @throws {TrainerError} `usage` for a name that is not UTF-8
 */
export function chooseModelsDir(fromCommand: string | undefined, fromQuotas: string | undefined): string {
  const chosen = fromCommand ?? (process.env.RANSOMEYE_MODELS_DIR || fromQuotas)
  // What Node.js reads for a byte that is no UTF-8: it would name another folder.
  if (chosen?.includes('\ufffd'))
    throw new TrainerError(
      'usage',
      `The models folder ${chosen} has a name that is not UTF-8; choose another`,
    )
  if (chosen !== undefined) return resolve(chosen)
  if (process.getuid?.() === 0) return SYSTEM_MODELS_DIR
  return join(process.env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'ransomeye', 'models')
}

/**
 * Make the models folder and its state folder where they are missing (0750), and resolve links above them.
 *
 * @param mustExist refuse a missing models folder: for a program that has nothing to do in a new one
 * @throws {TrainerError} `storage` if that is not possible
 */
export function openModelsDir(path: string, dryRun: boolean, mustExist = false): string {
  try {
    if (mustExist && !statSync(path, { throwIfNoEntry: false })) {
      throw new TrainerError('storage', `There is no models folder ${path}; name another by --models-dir`)
    }
    if (!dryRun) makeFolders(path)
    const modelsDir = realpathSync(path)
    statSync(`${modelsDir}/.`) // fails unless it is a folder that this user may look into
    if (!dryRun) makeFolder(stateDirOf(modelsDir))
    return modelsDir
  } catch (cause) {
    if (dryRun && isErrno(cause, 'ENOENT')) return path
    if (cause instanceof TrainerError) throw cause
    const owner = isErrno(cause, 'EACCES') ? `${accessRemedy(path)}, or ` : ''
    const remedy = outOfInodes(cause, path) ?? `${owner}choose another: --models-dir DIR`
    const message = `Cannot use the models folder ${path}: ${messageOf(cause)}; ${remedy}`
    throw new TrainerError('storage', message, { cause })
  }
}
