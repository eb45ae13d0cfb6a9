import { spawnSync } from 'node:child_process'
import { linkSync, readFileSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { checkPublished, findModels, publishedFiles } from '../lib/models.ts'
import { onnxModel } from './onnx-fixture.ts'
import { trainAndPublish } from './publishing.ts'
import { sandbox } from './sandbox.ts'
import { skipUnless } from './skips.ts'

const globs = ['**/*.onnx']
const isRoot = process.getuid?.() === 0
const hasStrace = spawnSync('strace', ['-V']).status === 0

test('findModels() finds models at any depth, in hidden folders and with odd names', async () => {
  const names = ['-rf.onnx', '.hidden/a.onnx', 'UPPER.ONNX', 'line\nbreak.onnx', 'sub/deep/a.onnx']
  await using box = await sandbox(Object.fromEntries(names.map(name => [name, onnxModel()])))

  const { valid, rejected } = await findModels(box.dir, ['**/*.onnx', '*.ONNX'])

  assert.equal(
    valid.map(({ name }) => name),
    names,
  )
  assert.equal(rejected, [])
})

test('findModels() leaves out work/, tmp/ and the files that describe models', async () => {
  const names = ['work/a.onnx', 'tmp/a.onnx', 'manifest.json', 'metadata.json', 'a.onnx']
  await using box = await sandbox(Object.fromEntries(names.map(name => [name, onnxModel()])))

  const { valid, rejected } = await findModels(box.dir, ['**/*.onnx', '*.json'])

  assert.equal(valid, [
    { path: box.path('a.onnx'), name: 'a.onnx', bytes: onnxModel().length, references: [] },
  ])
  assert.equal(rejected, [])
})

test('findModels() finds nothing where there is no folder', async () => {
  await using box = await sandbox()

  const findings = await findModels(box.path('core'), globs)

  assert.equal(findings, { valid: [], rejected: [] })
})

test('findModels() refuses links, hard links and folders, and says why', async () => {
  await using box = await sandbox({
    'elsewhere/a.onnx': onnxModel(),
    'core/folder.onnx/x': 1,
    'core/a': onnxModel(),
  })
  symlinkSync('../elsewhere/a.onnx', box.path('core/link.onnx'))
  symlinkSync('../elsewhere', box.path('core/linked'))
  linkSync(box.path('core/a'), box.path('core/twin.onnx'))

  const { valid, rejected } = await findModels(box.path('core'), ['*.onnx', 'linked/*.onnx'])

  assert.equal(valid, [])
  assert.equal(rejected, [
    { path: box.path('core/folder.onnx'), reason: 'is a folder, not a regular file' },
    { path: box.path('core/link.onnx'), reason: 'is a symbolic link, not a regular file' },
    { path: box.path('core/twin.onnx'), reason: 'has 2 hard links, so it can change under another name' },
  ])
})

test('findModels() refuses a FIFO without waiting for its writer', async () => {
  await using box = await sandbox()
  spawnSync('mkfifo', [box.path('pipe.onnx'), box.path('pipe.pkl')])

  const { status, stdout } = check(box.dir, ['*.onnx', '*.pkl'])

  assert.is(status, 0)
  assert.is(
    JSON.parse(stdout).reason,
    'pipe.onnx is a FIFO, not a regular file, pipe.pkl is a FIFO, not a regular file',
  )
})

skipUnless(
  test,
  isRoot,
  'needs root',
)('findModels() refuses a device', async () => {
  await using box = await sandbox()
  spawnSync('mknod', [box.path('null.onnx'), 'c', '1', '3'])

  const { rejected } = await findModels(box.dir, globs)

  assert.equal(rejected, [{ path: box.path('null.onnx'), reason: 'is a device, not a regular file' }])
})

test('findModels() refuses a name that is not UTF-8, and takes its twin with a real U+FFFD', async () => {
  await using box = await sandbox({ 'b\ufffd.onnx': onnxModel() })
  for (const name of ['a\xff.onnx', 'b\xff.onnx']) {
    writeFileSync(Buffer.concat([Buffer.from(`${box.dir}/`), Buffer.from(name, 'latin1')]), onnxModel())
  }

  const { valid, rejected } = await findModels(box.dir, globs)

  assert.equal(
    valid.map(({ name }) => name),
    ['b\ufffd.onnx'],
  )
  assert.equal(
    rejected.map(({ reason }) => reason),
    ['has a name that is not UTF-8'],
  )
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
    ['/etc/passwd', 'keeps data in /etc/passwd, which is not a place beside or below it'],
    ['../w.bin', 'keeps data in ../w.bin, which is not a place beside or below it'],
    ['data/../../w.bin', 'keeps data in data/../../w.bin, which is not a place beside or below it'],
    ['data/../w.bin', 'keeps data in data/../w.bin, which is not a place beside or below it'],
    ['', 'keeps data in , which is not a place beside or below it'],
    ['manifest.json', 'keeps data in manifest.json, which is not a place beside or below it'],
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
    assert.match(rejected[0]?.reason ?? '', /not a place beside or below it$/)
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

test('checkPublished() finds a job missing that has no folder or an empty one', async () => {
  await using box = await sandbox({ 'core/work/a.onnx': onnxModel() })

  for (const folder of ['core', 'dpi']) {
    const check = await checkPublished(box.path(folder), globs)
    assert.equal(check, {
      models: [],
      missing: true,
      reason: 'no model is published',
      differs: [],
      adopt: [],
    })
  }
})

test('checkPublished() finds a job missing whose model is empty, cut off, garbage or without a graph', async () => {
  const contents = [
    ['', /^core.onnx is empty$/],
    [onnxModel().subarray(0, 100), /^core.onnx is cut off or damaged at byte \d+$/],
    ['garbage', /^core.onnx is cut off or damaged at byte \d+$/],
    [onnxModel({ without: 'graph' }), /^core.onnx has no graph$/],
  ] as const
  await using box = await sandbox({ 'core.onnx': '' })

  for (const [content, reason] of contents) {
    writeFileSync(box.path('core.onnx'), content)
    const check = await checkPublished(box.dir, globs)
    assert.is(check.missing, true)
    assert.match(check.reason, reason)
  }
})

test('checkPublished() accepts what was published, without reading its content', async () => {
  await using box = await sandbox()
  const external = [{ location: 'w.bin', length: 8_000_000 }]
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ external }), 'w.bin': Buffer.alloc(8_000_000) })

  const before = bytesRead()
  const check = await checkPublished(box.dir, globs)
  const readBytes = bytesRead() - before

  assert.equal(check, {
    models: [box.path('core.onnx')],
    missing: false,
    reason: 'core.onnx as published',
    differs: [],
    adopt: [],
  })
  assert.ok(readBytes < 100_000, `${readBytes} bytes read`)
})

test('checkPublished() accepts a restored model by its hash, for adoption with its new time', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })
  utimesSync(box.path('core.onnx'), 1, 1)

  const { missing, differs, adopt } = await checkPublished(box.dir, globs)

  assert.equal(
    { missing, differs, adopt: adopt.map(({ name }) => name) },
    { missing: false, differs: [], adopt: ['core.onnx'] },
  )
})

test("checkPublished() accepts an operator's own model, and says that it differs", async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer: 'ours' }) })
  writeFileSync(box.path('core.onnx'), onnxModel({ producer: 'theirs, longer' }))
  const longer = await checkPublished(box.dir, globs)
  writeFileSync(box.path('core.onnx'), onnxModel({ producer: 'mine' }))
  const asLong = await checkPublished(box.dir, globs)

  for (const { missing, reason, differs, adopt } of [longer, asLong]) {
    assert.is(missing, false)
    assert.is(reason, 'core.onnx valid, not as published')
    assert.equal(differs, ['core.onnx'])
    assert.equal(
      adopt.map(({ name }) => name),
      ['core.onnx'],
    )
  }
})

test('checkPublished() tells of changed external data', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, {
    'core.onnx': onnxModel({ external: [{ location: 'w.bin' }] }),
    'w.bin': 'old',
  })
  writeFileSync(box.path('w.bin'), 'new')

  const { missing, differs } = await checkPublished(box.dir, globs)

  assert.equal({ missing, differs }, { missing: false, differs: ['w.bin'] })
})

test('checkPublished() does not accept a changed model that is not ONNX', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'a.pkl': 'old' }, { models: ['a.pkl'], globs: ['*.pkl'] })
  const before = await checkPublished(box.dir, ['*.pkl'])
  writeFileSync(box.path('a.pkl'), 'new')

  const { missing, reason } = await checkPublished(box.dir, ['*.pkl'])

  assert.is(before.reason, 'a.pkl as published')
  assert.equal({ missing, reason }, { missing: true, reason: 'a.pkl is not what was published' })
})

test('checkPublished() wants every model of the manifest', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'a.onnx': onnxModel(), 'b.onnx': onnxModel() })
  rmSync(box.path('b.onnx'))

  const { missing, reason, models } = await checkPublished(box.dir, globs)

  assert.equal(
    { missing, reason, models },
    { missing: true, reason: 'b.onnx is missing', models: [box.path('a.onnx')] },
  )
})

test('checkPublished() does not follow a folder that has become a link', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.path('core'), { 'sub/a.onnx': onnxModel() })
  renameSync(box.path('core/sub'), box.path('elsewhere'))
  symlinkSync('../elsewhere', box.path('core/sub'))

  const { missing, reason } = await checkPublished(box.path('core'), globs)

  assert.is(missing, true)
  assert.is(reason, 'sub/a.onnx is not inside a folder: sub is a symbolic link')
})

test('checkPublished() is content with one valid model where no manifest says more', async () => {
  await using box = await sandbox({ 'a.onnx': onnxModel(), 'b.onnx': 'garbage' })

  const { missing, reason, adopt } = await checkPublished(box.dir, globs)

  assert.is(missing, false)
  assert.match(reason, /^b.onnx is cut off or damaged at byte \d+, a.onnx valid, not in a manifest$/)
  assert.equal(
    adopt.map(({ name }) => name),
    ['a.onnx'],
  )
})

test('checkPublished() takes a manifest that is garbage, a link, huge or lists outside files for none', async () => {
  await using box = await sandbox({ 'good.json': 1 })
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })
  const manifest = box.path('manifest.json')
  const good = readFileSync(manifest, 'utf8')
  const bad = [
    '',
    '{',
    '[]',
    '{"files":{}}',
    good.replaceAll('core.onnx', '../core.onnx'),
    good + ' '.repeat(2 ** 22),
  ]

  for (const content of bad) {
    writeFileSync(manifest, content)
    const { missing, reason } = await checkPublished(box.dir, globs)
    assert.equal({ missing, reason }, { missing: false, reason: 'core.onnx valid, not in a manifest' })
  }
  writeFileSync(manifest, good)
  renameSync(manifest, box.path('good.json'))
  symlinkSync('good.json', manifest)
  const linked = await checkPublished(box.dir, globs)
  assert.is(linked.reason, 'core.onnx valid, not in a manifest')
})

test('checkPublished() looks anew when the job calls other files models than before', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })

  const { missing, reason } = await checkPublished(box.dir, ['*.pkl'])

  assert.equal({ missing, reason }, { missing: true, reason: 'no model is published' })
})

skipUnless(
  test,
  hasStrace,
  'needs strace',
)('checkPublished() opens no model that is not ONNX, and loads no library for globs', async () => {
  await using box = await sandbox()
  await trainAndPublish(
    box.dir,
    { 'a.pkl': 'x', 'b.onnx': onnxModel() },
    { models: ['a.pkl', 'b.onnx'], globs: ['*'] },
  )

  const log = box.path('log')
  const { stdout } = check(box.dir, ['*'], ['strace', '-f', '-e', 'trace=openat', '-o', log])
  const opened = readFileSync(log, 'utf8')

  assert.is(JSON.parse(stdout).reason, 'a.pkl, b.onnx as published')
  assert.ok(opened.includes(box.path('b.onnx')))
  assert.not(opened.includes(box.path('a.pkl')))
  assert.not(opened.includes('node_modules/globby/'))
})

test('publishedFiles() names models, valid or not, external data and the manifest, and only files', async () => {
  await using box = await sandbox({ 'folder.onnx/x': 1, 'other.tmp': 1, 'work/c.onnx': onnxModel() })
  await trainAndPublish(box.dir, {
    'a.onnx': onnxModel({ external: [{ location: 'a.tmp' }] }),
    'a.tmp': 'data',
  })
  writeFileSync(box.path('b.onnx'), onnxModel({ external: [{ location: 'b.tmp' }] }))
  writeFileSync(box.path('b.tmp'), 'data')
  writeFileSync(box.path('broken.onnx'), 'garbage')
  symlinkSync('a.tmp', box.path('link.onnx'))

  const files = await publishedFiles(box.dir)

  const names = ['a.onnx', 'a.tmp', 'b.onnx', 'b.tmp', 'broken.onnx', 'manifest.json']
  assert.equal(
    files.sort(),
    names.map(name => box.path(name)),
  )
})

test('publishedFiles() keeps what the manifest lists even if its model is gone', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, {
    'a.onnx': onnxModel({ external: [{ location: 'a.tmp' }] }),
    'a.tmp': 'data',
  })
  rmSync(box.path('a.onnx'))

  const files = await publishedFiles(box.dir)

  assert.equal(files.sort(), [box.path('a.tmp'), box.path('manifest.json')])
})

test('publishedFiles() fails where it cannot list, so that nothing is pruned', async () => {
  await using box = await sandbox({ core: 1 })

  const files = await publishedFiles(box.path('core')).catch((error: Error) => error.message)

  assert.match(String(files), /^Cannot look for models in .*core/)
})

/** checkPublished() in a process of its own, which a FIFO cannot hold up for ever. */
function check(
  jobDir: string,
  wanted: string[],
  prefix: string[] = [],
): { status: number | null; stdout: string } {
  const publisher = join(import.meta.dirname, 'publisher.ts')
  const argv = [...prefix, process.execPath, '--import', 'tsx', publisher, 'check', jobDir, ...wanted]
  return spawnSync(argv[0]!, argv.slice(1), { encoding: 'utf8', timeout: 20_000 })
}

/** Bytes that this process has read by system calls so far. */
function bytesRead(): number {
  return Number(/^rchar: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))![1])
}

test.run()
