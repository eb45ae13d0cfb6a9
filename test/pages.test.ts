import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { root } from '../lib/system/start-command.ts'
import { documentedOptions, pages } from './support/pages.ts'
import { test } from './support/test.ts'

const read = (path: string) => readFileSync(join(root, path), 'utf8')
const architecture = read('docs/architecture.md')

/** As GitHub makes the anchor of a heading. */
function anchorsOf(text: string): string[] {
  const headings = text.replaceAll(/^```.*?^```/gms, '').match(/^#+ .*$/gm) ?? []
  return headings.map(heading =>
    heading
      .replace(/^#+ /, '')
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
}

for (const { name, text } of pages) {
  test(`every link in ${name} leads somewhere`, () => {
    const links = [...text.matchAll(/\]\(([^)]+)\)|(?:src|srcset)="([^"]+)"/g)].map(([, a, b]) => a ?? b!)
    for (const link of links.filter(it => !it.startsWith('https://'))) {
      const [path, anchor] = link.split('#') as [string, string?]
      const file = path ? join(dirname(name), path) : name
      assert.ok(existsSync(join(root, file)), link)
      if (anchor !== undefined) assert.ok(anchorsOf(read(file)).includes(anchor), link)
    }
  })

  test(`every file that ${name} names is there`, () => {
    const isThere = (path: string) => existsSync(join(root, path))
    const paths = text.match(/(?<![\w./<-])(lib|scripts|test|docs)\/[\w/.-]*\w/g) ?? []
    for (const path of paths.filter(it => it !== 'scripts/NAME.ts')) assert.ok(isThere(path), path)

    const ours = ['lib', 'scripts', 'test'].flatMap(folder =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }),
    )
    const known = new Set([...ours, 'tasks.ts'].map(path => basename(path)))
    const files = [...text.matchAll(/`(\w[\w.-]*\.ts)\b/g)].map(([, file]) => file!)
    for (const file of files) assert.ok(known.has(file), file)
  })

  test(`every npm script that ${name} names is there`, () => {
    const { scripts } = JSON.parse(read('package.json'))
    for (const [, script] of text.matchAll(/\bnpm (?:run )?(start|test|(?<=run )[\w:]+)/g))
      assert.ok(scripts[script!], script)
  })
}

test('every documented script is there', () => {
  for (const { name, text } of pages) {
    for (const [, script] of text.matchAll(/\btsx ([\w/]+\.ts)/g)) {
      if (script !== 'scripts/NAME.ts') assert.ok(existsSync(join(root, script!)), `${script} in ${name}`)
    }
  }
})

test('the options of a documented command are found, up to its comment', () => {
  assert.ok(documentedOptions('tasks.ts').includes('--max-wait'))
  assert.ok(documentedOptions('scripts/volume.ts').includes('--keep-folder'))
  assert.not(documentedOptions('scripts/install.ts').includes('--now'))
})

test('docs/architecture.md names everything that stands in lib/ and scripts/', () => {
  for (const entry of readdirSync(join(root, 'lib'))) assert.match(architecture, `lib/${entry}`)
  const { text } = pages.find(({ name }) => name === 'README.md')!
  for (const script of readdirSync(join(root, 'scripts')).filter(it => it.endsWith('.ts')))
    assert.match(text, `\`${basename(script, '.ts')}\``)
})

test('what docs/architecture.md names in a file is in there', () => {
  for (const [, file, names] of architecture.matchAll(/`(lib\/[\w/.-]+\.ts)` \(([^)]*)\)/g))
    for (const [, name] of names!.matchAll(/`(\w+)`/g)) assert.match(read(file!), name!, `${name} in ${file}`)
})

test.run()
