import { existsSync } from 'node:fs'
import { basename, join, relative, resolve } from 'node:path'
import { quoteWord } from '../text.ts'

/** The models folder and the quotas of a run, absolute. */
export type Place = { modelsDir: string; quotasFile: string }

/** The project's folder, or that of the package. */
export const root = join(import.meta.dirname, '../..')

/** The package has plain JavaScript, and one command for all of it. */
export const isPackaged = !existsSync(join(root, 'tasks.ts'))

/** The command of the package; see debian/ransomeye-trainer.ts. */
const COMMAND = 'ransomeye-trainer'

/** The quotas file unless another is named: of the package, the one that an administrator may edit. */
export const defaultQuotasFile = isPackaged ? '/etc/ransomeye-trainer/quotas.json' : join(root, 'quotas.json')

/** Return the words that start a script of this project from the working directory. `script` is absolute. */
export function startOf(script: string): string[] {
  const name = relative(root, script)
  if (isPackaged && !name.startsWith('scripts/train/'))
    return name.startsWith('tasks.') ? [COMMAND] : [COMMAND, basename(name).replace(/\.[jt]s$/, '')]
  if (isPackaged) return ['node', script.replace(/\.ts$/, '.js')]
  const loader = process.cwd() === root ? 'tsx' : import.meta.resolve('tsx')
  return ['node', '--import', loader, relative(process.cwd(), script)]
}

/**
 * Name the command of a script as this installation has it, for help and messages: `node --import tsx scripts/prune.ts`, or
 * `ransomeye-trainer prune`. In a clone it is for the project's folder.
 *
 * @param name path of the script from the project's folder
 */
export function nameCommand(name: string, ...args: string[]): string {
  const words = isPackaged ? startOf(resolve(root, name)) : ['node', '--import', 'tsx', name]
  return [...words, ...args].join(' ')
}

/**
 * Return the command that runs a script of this project in the same place, as an operator types it. It always names the
 * models folder: the default of another user, or of another environment, may differ.
 */
export function commandFor({ modelsDir, quotasFile }: Place, script: string, ...args: string[]): string {
  const quotas = quotasFile === defaultQuotasFile ? [] : ['--quotas', quotasFile]
  const words = [...startOf(join(root, script)), ...args, '--models-dir', modelsDir, ...quotas]
  return words.map(quoteWord).join(' ')
}
