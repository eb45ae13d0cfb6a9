import { lstatSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { isErrno, messageOf, TrainerError } from './errors.ts'
import { accessRemedy } from './owner.ts'

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
    if (!dryRun) makeFolder(join(modelsDir, '.trainer'))
    return modelsDir
  } catch (cause) {
    if (dryRun && isErrno(cause, 'ENOENT')) return path
    if (cause instanceof TrainerError) throw cause
    const owner = isErrno(cause, 'EACCES') ? `${accessRemedy(path)}, or ` : ''
    const remedy = `${owner}choose another: --models-dir DIR`
    const message = `Cannot use the models folder ${path}: ${messageOf(cause)}; ${remedy}`
    throw new TrainerError('storage', message, { cause })
  }
}

/**
 * Make a folder (0750) unless it is there.
 *
 * @throws {TrainerError} `storage` if it cannot be made, or a link stands there, which would lead deletions elsewhere
 */
export function makeFolder(path: string): void {
  try {
    makeFolders(path)
  } catch (cause) {
    if (cause instanceof TrainerError) throw cause
    const remedy = 'this user must be able to write there'
    throw new TrainerError('storage', `Cannot make ${path}: ${messageOf(cause)}; ${remedy}`, { cause })
  }
  if (lstatSync(path).isSymbolicLink()) {
    throw new TrainerError('storage', `Cannot use ${path}: it is a symbolic link; remove it`)
  }
}

/**
 * Is the folder there?
 *
 * @throws {TrainerError} `storage` if something else has its place
 */
export function folderExists(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (stats && !stats.isDirectory())
    throw new TrainerError('storage', `${path} is a file, expected a folder; move it away`)
  return stats !== undefined
}

/** Not by `recursive: true`, which never comes back from a path below /proc in Node.js 20. */
function makeFolders(path: string): void {
  if (folderExists(path)) return
  makeFolders(dirname(path))
  try {
    mkdirSync(path, { mode: 0o750 })
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error // another starter was first
  }
}
