import { existsSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { root } from '../system/start-command.ts'

/**
 * Say that a command names files of this project which are not where it runs: its quotas file was copied to another
 * folder. Undefined if it names none.
 *
 * @param dir the folder of the quotas file, in which the command runs
 */
export function explainMisplaced(train: string[], dir: string): string | undefined {
  const isMisplaced = (word: string) =>
    word.includes('/') && !isAbsolute(word) && !existsSync(join(dir, word)) && existsSync(join(root, word))
  const file = train.find(isMisplaced)
  if (file === undefined) return undefined
  return `its command runs in the folder of its quotas file, ${dir}, where there is no ${file}; that is in ${root}: put the quotas file there`
}
