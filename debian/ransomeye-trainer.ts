/**
 * The command of the package: ransomeye-trainer [run|status|report|…] [options]
 *
 * Each subcommand is a script of scripts/, and `run`, which may be left out, is tasks.ts.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { TrainerError } from '../lib/errors.ts'
import { jobNames } from '../lib/quotas.ts'
import { didYouMean, packageVersion } from '../lib/settings/options.ts'
import { print, runScript } from '../lib/settings/script.ts'
import { root } from '../lib/system/start-command.ts'

/** What each subcommand does, by its name; made from the scripts' own help when the package is built. */
const summaries = JSON.parse(readFileSync(join(root, 'commands.json'), 'utf8')) as Record<string, string>

const [word = 'run', ...args] = process.argv.slice(2)

if (word === '--help' || word === '-h' || word === 'help') await say(describeCommands)
else if (word === '--version') await say(packageVersion)
else if (word.startsWith('-') || namesJobs([word, ...args])) await start('run', [word, ...args])
else if (Object.hasOwn(summaries, word)) await start(word, args)
else
  process.exitCode = await runScript(async () => {
    throw new TrainerError('usage', refusalOf(word))
  })

/** Are several jobs named? One alone is a subcommand too, with an option more. */
function namesJobs(words: string[]): boolean {
  const isJob = (word: string | undefined) => jobNames.some(job => job === word)
  return isJob(words[0]) && words.slice(1).some(isJob)
}

/** Start a subcommand as if its file were the program. */
async function start(command: string, args: string[]): Promise<void> {
  const file = join(root, command === 'run' ? 'tasks.js' : `scripts/${command}.js`)
  process.argv.splice(1, process.argv.length, file, ...args)
  await import(file)
}

async function say(text: () => string): Promise<void> {
  process.exitCode = await runScript(async () => {
    print(text())
    return 0
  })
}

function describeCommands(): string {
  const lines = Object.entries(summaries).map(([name, summary]) => `  ${name.padEnd(9)} ${summary}`)
  return `Train RansomEye's models, each inside its disk quota, and look after them.
  ransomeye-trainer [COMMAND] [options]

${lines.join('\n')}

Without a command, run. Each has its own --help, as in: ransomeye-trainer status --help
All of it: man ransomeye-trainer, man ransomeye-trainer-quotas`
}

function refusalOf(word: string): string {
  const known = [...Object.keys(summaries), ...jobNames]
  return `Unknown command "${word}"; the commands are ${Object.keys(summaries).join(', ')}${didYouMean(word, known)}`
}
