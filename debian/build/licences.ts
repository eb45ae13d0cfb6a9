import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Metafile } from 'esbuild'

type Lock = { packages: Record<string, { version?: string; license?: string; link?: true }> }
type Library = { path: string; name: string; version: string; licence: string }

/**
 * Write debian/copyright: our own licence, and that of each library of which something is in the bundle. A library that
 * brings no text of its licence has the address of one.
 *
 * @throws {Error} a library has a licence that is not in the list of package.json
 */
export function copyrightOf(project: string, metafile: Metafile): string {
  const libraries = librariesIn(project, metafile)
  const texts = new Map<string, string>()
  const parts = libraries.map(({ path, name, version, licence }) => {
    const { holders, text } = readLicence(join(project, path))
    const key = licenceKey(licence, text, texts)
    return `Files: ${path}/*
Copyright: ${holders.join('\n           ')}
License: ${key}
Comment: ${name} ${version}, bundled into /usr/lib/ransomeye-trainer.
`
  })
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
  const names = paths.flatMap(
    path => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/(?!.*node_modules\/))/.exec(path)?.[0] ?? [],
  )
  return [...new Set(names)].sort().map(path => {
    const { version, license: licence } = packages[path] ?? {}
    if (version === undefined || licence === undefined) throw new Error(`${path} is not in package-lock.json`)
    if (!allowed.includes(licence)) throw new Error(`${path} is under ${licence}, which is not allowed`)
    return { path, name: path.replace(/^.*node_modules\//, ''), version, licence }
  })
}

/** The licences that `npm run licences` allows. */
function allowedIn(project: string): string[] {
  const { scripts } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'))
  return /--onlyAllow '([^']+)'/.exec(scripts.licences)![1]!.split(';')
}

function readLicence(folder: string): { holders: string[]; text: string } {
  const file = readdirSync(folder).find(name => /^(licen[cs]e|copying)([-.]\w+)*$/i.test(name))
  if (file === undefined) {
    const { author } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
    return { holders: [typeof author === 'string' ? author : (author?.name ?? 'its authors')], text: '' }
  }
  const lines = readFileSync(join(folder, file), 'utf8').trim().split(/\r?\n/)
  const isHolder = (line: string) => /^\W*copyright\b(?=.*(\d{4}|\(c\)|©))/i.test(line)
  const holders = lines.filter(isHolder).map(line => line.trim().replace(/^\W*copyright\s*(\(c\))?\s*/i, ''))
  const text = lines.filter(line => !isHolder(line)).join('\n')
  return { holders: holders.length ? [...new Set(holders)] : ['its authors'], text: text.trim() }
}

/** Name a licence; texts of one kind that differ in more than their holders get names of their own. */
function licenceKey(licence: string, text: string, texts: Map<string, string>): string {
  if (licence === 'Apache-2.0') return licence
  const ids = licence.replace(/^\((.*)\)$/, '$1').split(' AND ')
  const words = text || `See ${ids.map(id => `https://spdx.org/licenses/${id}.html`).join(' and ')}`
  const same = [...texts].find(([other]) => plain(other) === plain(words))
  if (same) return same[1]
  const kind = ids.join('-and-')
  const count = [...texts.values()].filter(key => key.replace(/~\d+$/, '') === kind).length
  const key = count ? `${kind}~${count + 1}` : kind
  texts.set(words, key)
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
