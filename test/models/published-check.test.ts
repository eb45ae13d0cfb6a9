import { spawnSync } from 'node:child_process'
import { readFileSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { checkPublished } from '../../lib/models.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { bytesRead, checkApart, trainAndPublish } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const globs = ['**/*.onnx']
const hasStrace = spawnSync('strace', ['-V']).status === 0

test('checkPublished() finds a job missing that has no folder or an empty one', async () => {
  await using box = await sandbox({ 'core/work/a.onnx': onnxModel() })

  for (const folder of ['core', 'dpi']) {
    const check = await checkPublished(box.path(folder), globs)
    assert.equal(check, {
      models: [],
      missing: true,
      reason: 'no model is published',
      foreign: [],
      adopted: [],
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
    foreign: [],
    adopted: [],
    adopt: [],
  })
  assert.ok(readBytes < 100_000, `${readBytes} bytes read`)
})

test('checkPublished() accepts a restored model by its hash, for adoption with its new time', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })
  utimesSync(box.path('core.onnx'), 1, 1)

  const { missing, reason, foreign, adopted, adopt } = await checkPublished(box.dir, globs)

  assert.equal(
    { missing, reason, foreign, adopted, adopt: adopt.map(({ name }) => name) },
    { missing: false, reason: 'core.onnx as published', foreign: [], adopted: [], adopt: ['core.onnx'] },
  )
})

test("checkPublished() accepts an operator's own model, and says that it differs", async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer: 'ours' }) })
  writeFileSync(box.path('core.onnx'), onnxModel({ producer: 'theirs, longer' }))
  const longer = await checkPublished(box.dir, globs)
  writeFileSync(box.path('core.onnx'), onnxModel({ producer: 'mine' }))
  const asLong = await checkPublished(box.dir, globs)

  for (const { missing, reason, foreign, adopted, adopt } of [longer, asLong]) {
    assert.is(missing, false)
    assert.is(reason, 'core.onnx valid, not as published')
    assert.equal([foreign, adopted], [['core.onnx'], ['core.onnx']])
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

  const { missing, foreign } = await checkPublished(box.dir, globs)

  assert.equal({ missing, foreign }, { missing: false, foreign: ['w.bin'] })
})

test('checkPublished() takes external data that is shorter than published for damaged, if its model is ours', async () => {
  await using box = await sandbox()
  const model = (producer: string) => onnxModel({ producer, external: [{ location: 'w.bin' }] })
  await trainAndPublish(box.dir, { 'core.onnx': model('ours'), 'w.bin': 'weights' })
  writeFileSync(box.path('w.bin'), 'weight')
  const cut = await checkPublished(box.dir, globs)
  writeFileSync(box.path('core.onnx'), model('their'))
  const theirs = await checkPublished(box.dir, globs)

  assert.is(cut.missing, true)
  assert.is(
    cut.reason,
    'core.onnx needs w.bin, which is damaged: it has 6 of the 7 bytes that were published',
  )
  assert.equal([theirs.missing, theirs.foreign], [false, ['w.bin', 'core.onnx']])
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

test('checkPublished() takes no opaque file for a model that no manifest vouches for', async () => {
  await using box = await sandbox({ 'mine.pkl': 'anything' })

  const { missing, reason, adopt } = await checkPublished(box.dir, ['*.pkl'])

  assert.equal([missing, reason, adopt], [true, 'mine.pkl is in no manifest', []])
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
  const { stdout } = checkApart(
    box.dir,
    ['*'],
    ['strace', '-f', '--seccomp-bpf', '-e', 'trace=openat', '-o', log],
  )
  const opened = readFileSync(log, 'utf8')

  assert.is(JSON.parse(stdout).reason, 'a.pkl, b.onnx as published')
  assert.ok(opened.includes(box.path('b.onnx')))
  assert.not(opened.includes(box.path('a.pkl')))
  assert.not(opened.includes('node_modules/globby/'))
})

test.run()
