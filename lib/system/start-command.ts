import { join, relative } from 'node:path'
import { quoteWord } from '../text.ts'

/** The models folder and the quotas of a run, absolute. */
export type Place = { modelsDir: string; quotasFile: string }

/** Return the words that start a script of this project from the working directory. `script` is absolute. */
export function startOf(script: string): string[] {
  const loader = process.cwd() === root ? 'tsx' : import.meta.resolve('tsx')
  return ['node', '--import', loader, relative(process.cwd(), script)]
}

/**
 * Return the command that runs a script of this project in the same place, as an operator types it. It always names the
 * models folder: the default of another user, or of another environment, may differ.
 */
export function commandFor({ modelsDir, quotasFile }: Place, script: string, ...args: string[]): string {
  const quotas = quotasFile === join(root, 'quotas.json') ? [] : ['--quotas', quotasFile]
  const words = [...startOf(join(root, script)), ...args, '--models-dir', modelsDir, ...quotas]
  return words.map(quoteWord).join(' ')
}

/** The project's folder. */
export const root = join(import.meta.dirname, '../..')
