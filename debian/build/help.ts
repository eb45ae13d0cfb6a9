import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

/** A subcommand, as its own --help tells of it. */
export type Subcommand = {
  name: string
  summary: string
  usage: string
  options: { words: string; help: string }[]
  notes: string
  example: string
}

/**
 * Read the help of every subcommand from the bundle, `run` first.
 *
 * @throws {Error} one of them does not tell it
 */
export function readHelp(out: string, names: string[]): Subcommand[] {
  return ['run', ...names].map(name => {
    const file = join(out, name === 'run' ? 'tasks.js' : `scripts/${name}.js`)
    const text = execFileSync(process.execPath, [file, '--help'], { encoding: 'utf8' })
    const [summary = '', usage = '', options = '', ...rest] = text.trimEnd().split('\n\n')
    const example = rest.pop() ?? ''
    return {
      name,
      summary,
      usage: usage.trim(),
      options: options.split('\n').map(line => {
        const [, words = '', help = ''] = /^ {2}(--[\w-]+(?:, -\w)?(?: [A-Z]+)?) +(.*)$/.exec(line) ?? []
        if (!words) throw new Error(`The help of ${name} has no option in "${line}"`)
        return { words, help }
      }),
      notes: rest.join('\n\n'),
      example: example.replace(/^Example: /, ''),
    }
  })
}

/** Complete subcommands, their options, and the jobs, for bash. */
export function completionOf(commands: Subcommand[], jobs: readonly string[]): string {
  const wordsOf = ({ usage, options, notes }: Subcommand) => [
    ...options.flatMap(it => it.words.match(/--[\w-]+/g) ?? []),
    ...(/\bCOMMAND\b/.test(usage) ? verbsIn(notes) : []),
    ...(/\bJOB\b|\[core\]/.test(usage) ? jobs : []),
  ]
  const cases = commands.map(it => `    ${it.name}) words='${wordsOf(it).join(' ')}' ;;`)
  const [run] = commands
  const takesFile = commands.filter(({ usage }) => /\bFILE\b/.test(usage)).map(({ name }) => name)
  return `# bash completion for ransomeye-trainer
_ransomeye_trainer() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} words
  case $before in
    --*-dir | --scratch) mapfile -t COMPREPLY < <(compgen -d -- "$current") && return ;;
    --quotas | --out | --key | --bundle | --fleet) mapfile -t COMPREPLY < <(compgen -f -- "$current") && return ;;
  esac
  if ((COMP_CWORD == 1)); then
    words='${[...new Set([...commands.map(({ name }) => name), ...wordsOf(run!)])].join(' ')}'
  elif [[ $current != -* && \${COMP_WORDS[1]} =~ ^(${takesFile.join('|')})$ ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current") && return
  else
    case \${COMP_WORDS[1]} in
${cases.join('\n')}
    *) words='${wordsOf(run!).join(' ')}' ;;
    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o filenames -F _ransomeye_trainer ransomeye-trainer
`
}

/** Read the verbs of a subcommand from its notes: `  create    make it` or `  mount, unmount    over the folder`. */
function verbsIn(notes: string): string[] {
  const [, list = ''] = /^Commands:\n((?: {2}.*\n?)*)/m.exec(notes) ?? []
  return list.split('\n').flatMap(line => /^ {2}(\w+(?:, \w+)*) {2}/.exec(line)?.[1]?.split(', ') ?? [])
}
