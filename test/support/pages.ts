import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { root } from '../../lib/system/start-command.ts'

/** The pages that people read about this project; `name` is the path from its folder. */
export const pages = ['README.md', 'CONTRIBUTING.md', ...markdownIn('docs')].map(name => ({
  name,
  text: readFileSync(join(root, name), 'utf8'),
}))

function markdownIn(folder: string): string[] {
  return readdirSync(join(root, folder))
    .filter(name => name.endsWith('.md'))
    .map(name => join(folder, name))
}

/** The options that the pages give to a script, where they show its command or name it: `prune.ts --dry-run`, `ransomeye-trainer prune --dry-run`. */
export function documentedOptions(script: string): string[] {
  const name = basename(script, '.ts')
  const ofPackage = `ransomeye-trainer ${name} (.*)`
  const command = new RegExp(
    `^${name} (.*)|(?<![\\w/]|train/)(?:scripts/)?${name}\\.ts (.*)|${ofPackage}`,
    's',
  )
  // To the end of what is set as code, to a comment, or to the next command. A usage goes on in an indented line.
  const pieces = pages.flatMap(({ text }) => text.split(/[`#|&;>]|\n(?! +\[)/))
  const given = pieces.map(piece => command.exec(piece)?.slice(1).join(' ') ?? '')
  return [...new Set(given.flatMap(it => it.match(/(?<![\w-])--[a-z][\w-]*/g) ?? []))]
}
