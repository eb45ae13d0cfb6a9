/**
 * The command of the package: ransomeye-trainer [run|status|report|…] [options]
 *
 * Each subcommand is a script of scripts/, and `run`, which may be left out, is tasks.ts.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../lib/system/start-command.ts'

// This is on the way of every boot: what only answers a person is imported when somebody asks.

/** The summary of each subcommand, by its name, made from the scripts' own help when the package is built; and the jobs. */
const { summaries, jobs } = JSON.parse(readFileSync(join(root, 'commands.json'), 'utf8')) as {
  summaries: Record<string, string>
  jobs: string[]
}

const [word = 'run', ...args] = process.argv.slice(2)

if (word === '--help' || word === '-h' || word === 'help') await say(describeCommands)
else if (word === '--version') await say((await import('../lib/settings/options.ts')).packageVersion)
else if (word.startsWith('-') || namesJobs([word, ...args])) await start('run', [word, ...args])
else if (Object.hasOwn(summaries, word)) await start(word, args)
else await refuse(word)

/** Are several jobs named? One alone is a subcommand too, with an option more. */
function namesJobs(words: string[]): boolean {
  return jobs.includes(words[0]!) && words.slice(1).some(it => jobs.includes(it))
}

/** Start a subcommand as if its file were the program. */
async function start(command: string, args: string[]): Promise<void> {
  const file = join(root, command === 'run' ? 'tasks.js' : `scripts/${command}.js`)
  process.argv.splice(1, process.argv.length, file, ...args)
  await import(file)
}

async function say(text: () => string): Promise<void> {
  const { print, runScript } = await import('../lib/settings/script.ts')
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

async function refuse(word: string): Promise<void> {
  const { TrainerError } = await import('../lib/errors.ts')
  const { didYouMean } = await import('../lib/settings/options.ts')
  const { runScript } = await import('../lib/settings/script.ts')
  const commands = Object.keys(summaries)
  const known = [...commands, ...jobs]
  process.exitCode = await runScript(async () => {
    throw new TrainerError(
      'usage',
      `Unknown command "${word}"; the commands are ${commands.join(', ')}${didYouMean(word, known)}`,
    )
  })
}
