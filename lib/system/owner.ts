import { spawnSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { TrainerError } from '../errors.ts'
import { quoteWord } from '../text.ts'
import { nearestVisible } from './plain-file.ts'
import { safePath } from './programs.ts'
import { startOf } from './start-command.ts'

/** Are we root, and is this a folder of another user? That user's service could not write to what root makes in it. */
export function isAnothersFolder(modelsDir: string): boolean {
  return process.getuid?.() === 0 && existsSync(modelsDir) && statSync(modelsDir).uid !== 0
}

/**
 * Refuse to work as root in a models folder that belongs to another user.
 *
 * @param args the arguments of this program
 * @throws {TrainerError} `usage`, with the command to run instead
 */
export function assertOwnFolder(modelsDir: string, args: string[]): void {
  if (!isAnothersFolder(modelsDir)) return
  const { uid, gid } = statSync(modelsDir)
  const name = nameOf(uid)
  const identity = name
    ? ['runuser', '-u', name]
    : ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']
  // Name the folder: that user's default would be another one.
  const place = args.some(it => /^--models-dir(=|$)/.test(it)) ? [] : ['--models-dir', modelsDir]
  const command = [...identity, '--', ...startOf(process.argv[1]!), ...args, ...place]
  throw new TrainerError(
    'usage',
    `Cannot work as root in ${modelsDir}, which belongs to ${name ?? `user ${uid}`}; ` +
      `run: ${command.map(quoteWord).join(' ')}`,
  )
}

/**
 * Write the command that gives a folder, and all in it, to a user.
 *
 * @param owner as an option or argument of chown(1)
 * @param rootsOwn a folder in it that must stay root's; it may be missing
 */
export function chownCommand(owner: string, folder: string, rootsOwn: string): string {
  const [given, kept] = [folder, rootsOwn].map(quoteWord)
  const back = existsSync(rootsOwn) ? ` && chown -R root:root ${kept}` : ''
  return `chown -R ${owner} ${given}${back}`
}

/**
 * Name the remedy for a user who was refused access to a folder, which may be missing or out of sight.
 *
 * @param rootsOwn as for {@link chownCommand}
 */
export function accessRemedy(path: string, rootsOwn: string): string {
  const folder = nearestVisible(path)
  const { uid } = statSync(folder)
  return uid === process.geteuid?.()
    ? `to get it back, as root: ${chownCommand(`--reference=${quoteWord(folder)}`, folder, rootsOwn)}`
    : `run it as ${nameOf(uid) ?? `user ${uid}`}, the owner of ${folder}`
}

function nameOf(uid: number): string | undefined {
  const { stdout } = spawnSync('getent', ['passwd', String(uid)], {
    encoding: 'utf8',
    env: { PATH: safePath },
  })
  return stdout?.split(':')[0] || undefined
}
