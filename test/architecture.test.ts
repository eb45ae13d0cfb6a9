import { readdirSync, readFileSync } from 'node:fs'
import { join, normalize } from 'node:path'
import * as assert from 'uvu/assert'
import { root } from './support/places.ts'
import { test } from './support/test.ts'

/** The rooms, floor by floor: each may use only what stands on a lower floor than its own. */
const floors = [
  ['lib/errors', 'lib/text'],
  ['lib/system', 'lib/quotas'],
  ['lib/events'],
  ['lib/settings'],
  ['lib/models', 'lib/storage'],
  ['lib/run', 'lib/machine'],
  ['lib/training', 'lib/fleet', 'lib/reports'],
  ['scripts', 'scripts/train'],
  ['tasks'],
]

const files = ['lib', 'scripts']
  .flatMap(folder =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map(name => join(folder, name)),
  )
  .filter(name => name.endsWith('.ts'))
  .concat('tasks.ts')

/** The files of ours that a file imports: by name or whole, now or later, as a value or as a type. */
const importsOf = new Map(
  files.map(file => {
    const found = readFileSync(join(root, file), 'utf8').matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'(\.[^']+)'/g)
    return [file, [...found].map(([, path]) => normalize(join(file, '..', path!)))]
  }),
)

/** `X.ts` is the face of the room `X/`; the seed trainers are a room of their own. */
function roomOf(file: string): string {
  return /^(?:lib\/[^/.]+|scripts\/train(?=\/)|scripts|tasks)/.exec(file)?.[0] ?? file
}

const floorOf = (file: string) => floors.findIndex(rooms => rooms.includes(roomOf(file)))

test('every file stands in a known room, and lib/ has few entries', () => {
  const entries = readdirSync(join(root, 'lib'))

  assert.equal(
    files.filter(file => floorOf(file) < 0),
    [],
  )
  assert.ok(entries.length <= 18, `lib/ has ${entries.length} entries`)
})

test('no room imports one that does not stand below it', () => {
  const wrong = [...importsOf].flatMap(([file, imports]) =>
    imports
      .filter(path => roomOf(path) !== roomOf(file) && floorOf(path) >= floorOf(file))
      .map(path => `${file} imports ${path}`),
  )

  assert.ok(importsOf.get('tasks.ts')!.includes('scripts/core.ts'), 'imports are found')
  assert.equal(wrong, [])
})

test('no file imports itself by way of others', () => {
  const circles: string[] = []
  const done = new Set<string>()
  function visit(file: string, way: string[]): void {
    if (way.includes(file)) circles.push([...way.slice(way.indexOf(file)), file].join(' → '))
    if (way.includes(file) || done.has(file)) return
    for (const path of importsOf.get(file) ?? []) visit(path, [...way, file])
    done.add(file)
  }
  for (const file of files) visit(file, [])

  assert.equal(circles, [])
})

test.run()
