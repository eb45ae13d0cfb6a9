import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, TrainerError } from '../errors.ts'
import { jobNames } from '../quotas.ts'
import { SERVICE_USER } from '../settings/folders.ts'
import { layout, stateDirOf, volumesDirOf } from '../settings/layout.ts'
import { chownCommand } from '../system/owner.ts'
import { programRunner } from '../system/programs.ts'
import type { Machine } from './install-units.ts'

const run = programRunner()

/**
 * Make the services' user, with a group of its name, unless it exists.
 *
 * @returns a line if it was made
 * @throws {TrainerError} `storage` if it cannot be made
 */
export async function ensureUser({ image }: Machine): Promise<string[]> {
  if (await userExists(image)) return []
  try {
    await run([
      ...['useradd', ...(image === undefined ? [] : ['--prefix', image]), '--system', '--user-group'],
      ...['--home-dir', '/var/lib/ransomeye', '--no-create-home', '--shell', '/usr/sbin/nologin'],
      SERVICE_USER,
    ])
  } catch (cause) {
    const remedy = 'make a system user and a group of that name first'
    const message = `Cannot make the user ${SERVICE_USER}: ${messageOf(cause)}; ${remedy}`
    throw new TrainerError('storage', message, { cause })
  }
  return [`made the system user ${SERVICE_USER}`]
}

/**
 * Make a models folder (0750) that belongs to the services' user, unless it exists.
 *
 * @returns a line if it was made
 * @throws {TrainerError} `storage` if it cannot be made, or is there and that user cannot write in it
 */
export async function ensureFolder(path: string): Promise<string[]> {
  if (existsSync(path)) {
    await assertWritable(path)
    return []
  }
  try {
    await run(['install', '-d', '-m', '0750', '-o', SERVICE_USER, '-g', SERVICE_USER, path])
  } catch (cause) {
    throw new TrainerError('storage', `Cannot make the folder ${path}: ${messageOf(cause)}`, { cause })
  }
  return [`made ${path}`]
}

/** The folders that another user's runs may have made already. */
const partsOf = (modelsDir: string) => [
  modelsDir,
  stateDirOf(modelsDir),
  ...jobNames.map(job => layout(modelsDir, job).jobDir),
]

/** @throws {TrainerError} `storage` if the services' user cannot write in a models folder that is there */
async function assertWritable(path: string): Promise<void> {
  for (const part of partsOf(path).filter(it => existsSync(it))) {
    if (await userCanRun(['test', '-w', part, '-a', '-x', part])) continue
    throw new TrainerError(
      'storage',
      `Cannot use ${path}: the service runs as ${SERVICE_USER}, which cannot write in ${part}; ` +
        `give it all that is in there: ${chownCommand(`${SERVICE_USER}:${SERVICE_USER}`, path, volumesDirOf(path))}`,
    )
  }
}

/** Can the services' user run this command? */
export async function userCanRun(command: string[]): Promise<boolean> {
  const identity = [`--reuid=${SERVICE_USER}`, `--regid=${SERVICE_USER}`, '--init-groups']
  return succeeds(['setpriv', ...identity, '--', ...command])
}

async function userExists(image: string | undefined): Promise<boolean> {
  if (image === undefined) return succeeds(['getent', 'passwd', SERVICE_USER])
  const users = join(image, 'etc', 'passwd')
  return existsSync(users) && new RegExp(`^${SERVICE_USER}:`, 'm').test(readFileSync(users, 'utf8'))
}

function succeeds(argv: string[]): Promise<boolean> {
  return run(argv).then(
    () => true,
    () => false,
  )
}
