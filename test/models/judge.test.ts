import { spawnSync } from 'node:child_process'
import { linkSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { findModels, listNames } from '../../lib/models/find.ts'
import { failure } from '../support/failure.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const globs = ['**/*.onnx']

const LISTED: [string[], string[]][] = [
  [['*.onnx'], ['.dot.onnx', 'a.onnx', 'line\nbreak.onnx']],
  [['**/*.onnx'], ['.dot.onnx', 'a.onnx', 'deep/b.onnx', 'deep/er/c.onnx', 'line\nbreak.onnx']],
  [
    ['{a,z}.onnx', '*/er/*'],
    ['a.onnx', 'deep/er/c.onnx', 'deep/er/notes.txt'],
  ],
  [['{deep/b,a}.onnx'], ['a.onnx', 'deep/b.onnx']],
  [['deep/@(er|b*)/+([a-c]).onnx'], ['deep/er/c.onnx']],
  [['deep/**'], ['deep/b.onnx', 'deep/er/c.onnx', 'deep/er/notes.txt']],
  [['*er'], []],
  [
    ['*/*er', 'line\nbreak.onnx'],
    ['deep/er', 'line\nbreak.onnx'],
  ],
  [
    ['**/*.onnx', '!deep/**'],
    ['.dot.onnx', 'a.onnx', 'line\nbreak.onnx'],
  ],
  [['[ab].onnx', 'work/*.onnx'], ['a.onnx']],
]
test('listNames() lists what the globs say, however they say it, and nothing of the folders that are ours', async () => {
  await using box = await sandbox(
    Object.fromEntries(
      [
        ...['a.onnx', '.dot.onnx', 'deep/b.onnx', 'deep/er/c.onnx', 'deep/er/notes.txt', 'line\nbreak.onnx'],
        ...['work/d.onnx', 'tmp/e.onnx'],
      ].map(name => [name, 1]),
    ),
  )

  for (const [globs, names] of LISTED) assert.equal(await listNames(box.dir, globs), names, globs.join(' '))
})

test('findModels() takes none of more names than anybody means, however many others there are', async () => {
  await using box = await sandbox({ 'a.onnx': onnxModel() })
  for (let n = 0; n < 33_000; n++) writeFileSync(box.path(`${n}.part`), '')

  const few = await findModels(box.dir, ['*.onnx', 'deep/**'])
  const many = await findModels(box.dir, ['*.onnx', '*.part'])

  assert.is(few.valid.length, 1)
  assert.equal(many.valid, [])
  assert.match(`${many.rejected[0]?.reason}`, /more than 32768 names that models means/)
  const error = await failure(() => listNames(box.dir, ['*']))
  assert.is(error.code, 'storage')
  assert.match(error.message, /has more than 32768 names/)
})

test('findModels() takes external data beside or below its model, with its path', async () => {
  const external = [{ location: 'w.bin', offset: 4, length: 6 }, { location: './data/v.bin' }]
  await using box = await sandbox({
    'sub/a.onnx': onnxModel({ external }),
    'sub/w.bin': 10,
    'sub/data/v.bin': 1,
  })

  const { valid } = await findModels(box.dir, globs)

  assert.equal(valid[0]?.references, [box.path('sub/w.bin'), box.path('sub/data/v.bin')])
})

test('findModels() refuses external data that is elsewhere, a link, too short or missing', async () => {
  const cases: [location: string, reason: string][] = [
    ['/etc/passwd', 'keeps data in /etc/passwd, which is not beside or below it'],
    ['../w.bin', 'keeps data in ../w.bin, which is not beside or below it'],
    ['data/../../w.bin', 'keeps data in data/../../w.bin, which is not beside or below it'],
    ['data/../w.bin', 'keeps data in data/../w.bin, which is not beside or below it'],
    ['', 'keeps data in , which is not beside or below it'],
    ['manifest.json', 'keeps data in manifest.json, which is not beside or below it'],
    ['link.bin', 'needs link.bin, which is a symbolic link, not a regular file'],
    ['linked/w.bin', 'needs linked/w.bin, which is not inside a folder: linked is a symbolic link'],
    ['twin.bin', 'needs twin.bin, which has 2 hard links, so it can change under another name'],
    ['pipe.bin', 'needs pipe.bin, which is a FIFO, not a regular file'],
    ['data', 'needs data, which is a folder, not a regular file'],
    ['none.bin', 'needs none.bin, which is missing'],
    ['short.bin', 'needs 12 bytes of short.bin, which has 11'],
  ]
  await using box = await sandbox({
    'w.bin': 12,
    'core/w.bin': 12,
    'core/short.bin': 11,
    'core/data/w.bin': 12,
  })
  symlinkSync('w.bin', box.path('core/link.bin'))
  symlinkSync('data', box.path('core/linked'))
  linkSync(box.path('w.bin'), box.path('core/twin.bin'))
  spawnSync('mkfifo', [box.path('core/pipe.bin')])

  for (const [location, reason] of cases) {
    writeFileSync(box.path('core/a.onnx'), onnxModel({ external: [{ location, offset: 8, length: 4 }] }))
    const { rejected } = await findModels(box.path('core'), globs)
    assert.equal(
      rejected.map(found => found.reason),
      [reason],
    )
  }
})

test('findModels() refuses data in work/ and tmp/, which do not last', async () => {
  await using box = await sandbox({ 'work/w.bin': 12, 'tmp/w.bin': 12 })
  for (const location of ['work/w.bin', 'tmp/w.bin']) {
    writeFileSync(box.path('a.onnx'), onnxModel({ external: [{ location }] }))
    const { rejected } = await findModels(box.dir, globs)
    assert.match(rejected[0]?.reason ?? '', /is not beside or below it$/)
  }
})

test('findModels() asks of a model that is not ONNX only that it is a file with content', async () => {
  await using box = await sandbox({ 'a.pkl': 'not a pickle', 'empty.pkl': '' })

  const { valid, rejected } = await findModels(box.dir, ['*.pkl'])

  assert.equal(
    valid.map(({ name }) => name),
    ['a.pkl'],
  )
  assert.equal(rejected, [{ path: box.path('empty.pkl'), reason: 'is empty' }])
})

test.run()
