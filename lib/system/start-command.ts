import { join, relative } from 'node:path'
import { quoteWord } from '../text.ts'

/** What a run was given: its models folder and its quotas, absolute. */
export type Place = { modelsDir: string; quotasFile: string }

/** How a script of this project is started from the working directory, a word each; `script` is absolute. */
export function startOf(script: string): string[] {
  const loader = process.cwd() === root ? 'tsx' : import.meta.resolve('tsx')
  return ['node', '--import', loader, relative(process.cwd(), script)]
}

/**
 * The command that runs a script of this project in the same place, as an operator types it. The models folder is always
 * named: the default of another user, or without this environment, would be another one.
 */
export function commandFor({ modelsDir, quotasFile }: Place, script: string, ...args: string[]): string {
  const quotas = quotasFile === join(root, 'quotas.json') ? [] : ['--quotas', quotasFile]
  const words = [...startOf(join(root, script)), ...args, '--models-dir', modelsDir, ...quotas]
  return words.map(quoteWord).join(' ')
}

/** The project's folder. */
export const root = join(import.meta.dirname, '../..')
