import type { Subcommand } from './help.ts'

type Page = { name: string; section: number; title: string; version: string; date: string }

/** Name in a page of docs/ the commands of the package in place of a clone's; its trainers stay where they are. */
export function asInstalled(page: string): string {
  return page
    .replaceAll(/^With the package `ransomeye-trainer status` stands for .*\n\n?/gm, '')
    .replaceAll(/(?:node --import tsx )?scripts\/(?!install|schema)(\w+)\.ts/g, 'ransomeye-trainer $1')
    .replaceAll(/(?:node --import tsx )?\btasks\.ts\b/g, 'ransomeye-trainer')
    .replaceAll(/`(core|dpi|agent)\.ts`/g, '`ransomeye-trainer $1`')
}

/** Leave out pictures, and links to files of the project that the package does not have, from a page that it has. */
export function withoutAbsentLinks(page: string): string {
  return page
    .replaceAll(/^(?:!\[|<picture>).*\n\n?/gm, '')
    .replaceAll(/\[([^\]]+)\]\((?:\.\.\/)?(?:lib|test|LICENSE|CONTRIBUTING)\b[^)]*\)/g, '$1')
}

/** The page ransomeye-trainer(1): what the commands say of themselves, and what README says of the whole. */
export function commandPage(page: Page, commands: Subcommand[], readme: string, life: string): string {
  const described = commands.map(
    ({ name, summary, usage, options, notes, example }) => `.SS ${name}
${escapeRoff(summary)}
.PP
.EX
${escapeRoff(usage)}
.EE
${options.map(({ words, help }) => `.TP\n\\fB${escapeRoff(words)}\\fR\n${escapeRoff(help)}`).join('\n')}
${notes ? `.PP\n.EX\n${escapeRoff(notes)}\n.EE` : ''}
.PP
Example: \\fB${escapeRoff(example)}\\fR`,
  )
  return `${head(page)}
.SH SYNOPSIS
\\fBransomeye-trainer\\fR [\\fICOMMAND\\fR] [\\fIOPTIONS\\fR]
.PP
Without a command, \\fBrun\\fR.
.SH DESCRIPTION
${roffOf(sectionOf(readme, 'What a run does'))}
.SS What the quota guarantees
${roffOf(sectionOf(readme, 'What the quota guarantees'))}
.SH COMMANDS
${described.join('\n')}
.SH EXIT STATUS
${roffOf(sectionOf(readme, 'Command line and exit codes').replace(/^```text[\s\S]*?^```$/m, ''))}
.SH THE PACKAGE
${roffOf(life)}
.SH SEE ALSO
\\fBransomeye-trainer-quotas\\fR(5), \\fBjournalctl\\fR(1), \\fBsystemctl\\fR(1), \\fBbwrap\\fR(1),
/usr/share/doc/ransomeye-trainer
`
}

/** A page made of a Markdown file of docs/, whose first heading gives way to the page's own. */
export function filePage(page: Page, markdown: string, after: string): string {
  return `${head(page)}
.SH DESCRIPTION
${roffOf(markdown.replace(/^# .*\n/, ''))}
${after}
.SH SEE ALSO
\\fBransomeye-trainer\\fR(1)
`
}

/** The text below a heading of a Markdown file, up to the next of its rank. */
export function sectionOf(markdown: string, heading: string): string {
  const start = markdown.indexOf(`## ${heading}\n`)
  if (start < 0) throw new Error(`There is no "${heading}"`)
  const rest = markdown.slice(start + heading.length + 4)
  const end = rest.search(/^## /m)
  return (end < 0 ? rest : rest.slice(0, end)).replace(/^\n+|\s+$/g, '')
}

function head({ name, section, title, version, date }: Page): string {
  return `.TH ${name.toUpperCase().replaceAll('-', '\\-')} ${section} ${date} "ransomeye\\-trainer ${version}"
.SH NAME
${escapeRoff(name)} \\- ${escapeRoff(title)}`
}

/** Turn the Markdown that our pages use into roff: paragraphs, lists, tables, code and headings. */
export function roffOf(markdown: string): string {
  return joinFences(markdown.replace(/^\n+|\s+$/g, '').split(/\n{2,}/))
    .map(roffOfBlock)
    .filter(Boolean)
    .join('\n')
}

/** A fenced block may hold blank lines. */
function joinFences(blocks: string[]): string[] {
  const joined: string[] = []
  for (const block of blocks) {
    const isOpen = ((joined.at(-1) ?? '').match(/^```/gm)?.length ?? 0) % 2
    if (isOpen) joined.push(`${joined.pop()}\n\n${block}`)
    else joined.push(block)
  }
  return joined
}

function roffOfBlock(indented: string): string {
  // In a list more blocks may belong to an item.
  const block = /^ {2,3}\S/.test(indented) ? indented.replaceAll(/^ {2,3}/gm, '') : indented
  if (block.startsWith('!') || block.startsWith('<')) return '' // a picture
  if (block.startsWith('#')) return `.SS ${inline(block.replace(/^#+ /, ''))}`
  if (block.startsWith('```')) return code(block.replace(/^```\w*\n|\n```$/g, ''))
  if (/^ {4}/.test(block)) return code(block.replaceAll(/^ {4}/gm, ''))
  if (block.startsWith('|')) return table(block)
  if (/^\* /.test(block))
    return block
      .split(/\n(?=\* )/)
      .map(item => `.IP \\(bu 2\n${inline(item.slice(2))}`)
      .join('\n')
  if (/^\d+\. /.test(block))
    return block
      .split(/\n(?=\d+\. )/)
      .map(item => item.replace(/^(\d+\.) (.*)$/s, (_, number, text) => `.IP ${number} 4\n${inline(text)}`))
      .join('\n')
  return `.PP\n${inline(block)}`
}

function code(text: string): string {
  return `.PP\n.EX\n${escapeRoff(text)}\n.EE`
}

/** A row becomes a tagged paragraph: its first cell, and what the others say of it. */
function table(block: string): string {
  const [heads = [], , ...rows] = block.split('\n').map(line =>
    line
      .replace(/^\||\|$/g, '')
      .split(/(?<!\\)\|/)
      .map(cell => cell.trim()),
  )
  const rest = (cells: string[]) =>
    cells
      .slice(1)
      .map(
        (cell, index) =>
          cell && (heads.length > 2 && heads[index + 1] ? `${heads[index + 1]}: ${cell}` : cell),
      )
      .filter(Boolean)
      .join('. ')
  return rows.map(cells => `.TP\n${inline(cells[0]!) || '\\&'}\n${inline(rest(cells)) || '\\&'}`).join('\n')
}

function inline(text: string): string {
  return escapeRoff(text.replaceAll(/\s*\n\s*/g, ' ').replaceAll(/\[([^\]]+)\]\([^)]*\)/g, '$1'))
    .replaceAll(/`([^`]*)`/g, '\\fB$1\\fR')
    .replaceAll(/\*\*([^*]+)\*\*/g, '\\fB$1\\fR')
}

function escapeRoff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('…', '...')
    .replaceAll('→', '\\(->')
    .replaceAll('≥', '\\(>=')
    .replaceAll('≤', '\\(<=')
    .replaceAll(/^\./gm, '\\&.')
}
