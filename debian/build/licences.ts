import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Metafile } from 'esbuild'

type Lock = { packages: Record<string, { version?: string; license?: string; link?: true }> }
/** `files` are those of which something is in the bundle. */
type Library = { path: string; name: string; version: string; licence: string; files: string[] }

/** What a library has inside of its own files, without its licence; by name, as the package of each says it. */
const VENDORED: Record<string, { holder: string; licence: 'MIT' | 'ISC' }> = {
  '@webpod/ingrid': { holder: '2024 Webpod', licence: 'MIT' },
  '@webpod/ps': { holder: '2024 Webpod', licence: 'MIT' },
  chalk: { holder: 'Sindre Sorhus <sindresorhus@gmail.com>', licence: 'MIT' },
  isexe: { holder: '2016-2022 Isaac Z. Schlueter and Contributors', licence: 'ISC' },
  which: { holder: 'Isaac Z. Schlueter and Contributors', licence: 'ISC' },
  zurk: { holder: '2024 Webpod', licence: 'MIT' },
}

/**
 * Write debian/copyright: our own licence, and that of each library of which something is in the bundle, also inside of another
 * one's files.
 *
 * @throws {Error} a library has a licence that is not in the list of package.json, or does not say whose it is
 */
export function copyrightOf(project: string, metafile: Metafile): string {
  const libraries = librariesIn(project, metafile)
  const texts = new Map<string, string>()
  const parts = libraries.map(({ path, name, version, licence, files }) => {
    const { holders, text } = readLicence(
      join(project, path),
      files.map(file => join(project, file)),
    )
    const key = licenceKey(licence, text, texts)
    return `Files: ${path}/*
Copyright: ${holders.join('\n           ')}
License: ${key}
Comment: ${name} ${version}, bundled into /usr/lib/ransomeye-trainer.
`
  })
  const files = libraries.flatMap(library => library.files)
  parts.push(...files.flatMap(file => vendoredPart(project, file, texts)))
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ransomeye-trainer
Comment: Made from package-lock.json and from what the bundle holds.

Files: *
Copyright: The RansomEye authors
License: Apache-2.0

${parts.join('\n')}
License: Apache-2.0
 On Debian systems the full text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
${[...texts].map(([text, key]) => `\nLicense: ${key}\n${indent(text)}\n`).join('')}`
}

/** The libraries of which esbuild has put something into the bundle, as the lock file has them. */
function librariesIn(project: string, { inputs, outputs }: Metafile): Library[] {
  const { packages } = JSON.parse(readFileSync(join(project, 'package-lock.json'), 'utf8')) as Lock
  const allowed = allowedIn(project)
  const used = new Set(Object.values(outputs).flatMap(output => Object.keys(output.inputs)))
  const paths = Object.keys(inputs).filter(path => used.has(path))
  const libraryOf = (path: string) =>
    /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/(?!.*node_modules\/))/.exec(path)?.[0]
  const names = new Set(paths.flatMap(path => libraryOf(path) ?? []))
  return [...names].sort().map(path => {
    const { version, license: licence } = packages[path] ?? {}
    if (version === undefined || licence === undefined) throw new Error(`${path} is not in package-lock.json`)
    if (!allowed.includes(licence)) throw new Error(`${path} is under ${licence}, which is not allowed`)
    const files = paths.filter(file => libraryOf(file) === path)
    return { path, name: path.replace(/^.*node_modules\//, ''), version, licence, files }
  })
}

/** The part on a file of a library that has others inside: each stands below a comment with its path. */
function vendoredPart(project: string, file: string, texts: Map<string, string>): string[] {
  const markers = readFileSync(join(project, file), 'utf8').matchAll(
    /^\/\/ node_modules\/((?:@[^/\n]+\/)?[^/\n]+)\//gm,
  )
  const names = [...new Set(Array.from(markers, ([, name]) => name!))].sort()
  if (!names.length) return []
  const vendored = names.map(name => {
    const known = VENDORED[name]
    if (!known) throw new Error(`${file} has ${name} inside, whose licence nobody has looked at`)
    return known
  })
  const holders = [...new Set(vendored.map(({ holder }) => holder))]
  const keys = [...new Set(vendored.map(({ licence }) => licence))].sort()
  const known = [...texts.values()]
  for (const key of keys) if (!known.includes(key)) throw new Error(`no library brings the text of ${key}`)
  return [
    `Files: ${file}
Copyright: ${holders.join('\n           ')}
License: ${keys.join(' and ')}
Comment: This file has ${names.join(', ')} inside.
`,
  ]
}

/** The licences that `npm run licences` allows. */
function allowedIn(project: string): string[] {
  const { scripts } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'))
  return /--onlyAllow '([^']+)'/.exec(scripts.licences)![1]!.split(';')
}

/** Read a library's licence: from its own file, else from what stands above the code that is bundled. */
function readLicence(folder: string, files: string[]): { holders: string[]; text: string } {
  const name = readdirSync(folder).find(it => /^(licen[cs]e|copying)([-.]\w+)*$/i.test(it))
  const found = name === undefined ? files.map(headOf) : [readFileSync(join(folder, name), 'utf8')]
  const blocks = [...new Set(found)].map(block => block.trim().split(/\r?\n/))
  const isHolder = (line: string) => /^\W*[Cc]opyright (?:\([Cc]\)|©|\d{4}|[A-Z])/.test(line)
  const holders = blocks
    .flat()
    .filter(isHolder)
    .map(line => line.trim().replace(/^\W*copyright\s*(\(c\)|©)?\s*/i, ''))
  const text = blocks
    .map(lines =>
      lines
        .filter(line => !isHolder(line))
        .join('\n')
        .trim(),
    )
    .join('\n\n')
  const { author } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  if (!holders.length) holders.push(typeof author === 'string' ? author : author?.name)
  if (!holders[0] || !text) throw new Error(`${folder} does not say whose it is, or under which licence`)
  return { holders: [...new Set(holders)], text }
}

/** The comment that a file begins with. */
function headOf(file: string): string {
  const [head] = /^(?:\/\/.*\n)*/.exec(readFileSync(file, 'utf8'))!
  return head.replaceAll(/^\/\/ ?/gm, '')
}

/** Name a licence; texts of one kind that differ in more than their holders get names of their own. */
function licenceKey(licence: string, text: string, texts: Map<string, string>): string {
  if (licence === 'Apache-2.0') return licence
  const ids = licence.replace(/^\((.*)\)$/, '$1').split(' AND ')
  const same = [...texts].find(([other]) => plain(other) === plain(text))
  if (same) return same[1]
  const kind = ids.join('-and-')
  const count = [...texts.values()].filter(key => key.replace(/~\d+$/, '') === kind).length
  const key = count ? `${kind}~${count + 1}` : kind
  texts.set(text, key)
  return key
}

function plain(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, ' ')
    .trim()
}

function indent(text: string): string {
  return text
    .split('\n')
    .map(line => (line.trim() ? ` ${line.trimEnd()}` : ' .'))
    .join('\n')
}
