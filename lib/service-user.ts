import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, TrainerError } from './errors.ts'
import type { Machine } from './installation.ts'
import { SERVICE_USER } from './units.ts'
import { programRunner } from './volume/program.ts'

const run = programRunner()

/**
 * Make the user that the services run as, with a group of its name, unless there is one.
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
 * Make a folder (0750) of the services' user, unless it is there.
 *
 * @returns a line if it was made
 * @throws {TrainerError} `storage` if it cannot be made
 */
export async function ensureFolder(path: string): Promise<string[]> {
  if (existsSync(path)) return []
  try {
    await run(['install', '-d', '-m', '0750', '-o', SERVICE_USER, '-g', SERVICE_USER, path])
  } catch (cause) {
    throw new TrainerError('storage', `Cannot make the folder ${path}: ${messageOf(cause)}`, { cause })
  }
  return [`made ${path}`]
}

/** Why the services' user cannot run a command; undefined if it can. */
export async function obstacleTo(command: string[]): Promise<string | undefined> {
  const identity = [`--reuid=${SERVICE_USER}`, `--regid=${SERVICE_USER}`, '--init-groups']
  return run(['setpriv', ...identity, '--', ...command]).then(() => undefined, messageOf)
}

async function userExists(image: string | undefined): Promise<boolean> {
  if (image === undefined) {
    return run(['getent', 'passwd', SERVICE_USER]).then(
      () => true,
      () => false,
    )
  }
  const users = join(image, 'etc', 'passwd')
  return existsSync(users) && new RegExp(`^${SERVICE_USER}:`, 'm').test(readFileSync(users, 'utf8'))
}
