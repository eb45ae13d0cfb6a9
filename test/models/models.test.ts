import { spawnSync } from 'node:child_process'
import { chmodSync, linkSync, mkdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { adopt } from '../../lib/models/adopt.ts'
import { findModels } from '../../lib/models/find.ts'
import { generationOf } from '../../lib/models/generations.ts'
import { recover } from '../../lib/models/recovery.ts'
import { rollBack } from '../../lib/models/rollback.ts'
import { verifyPublished } from '../../lib/models/verify.ts'
import { checkPublished, publishedFiles, supersededFiles } from '../../lib/models.ts'
import { checkpointTest } from '../../lib/storage/rules.ts'
import { digFolders } from '../support/deep-folder.ts'
import { failure } from '../support/failure.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { checkApart, trainAndPublish } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const globs = ['**/*.onnx']
const isRoot = process.getuid?.() === 0

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

test('findModels() takes no checkpoint for a model, nor anything inside one', async () => {
  const names = [
    'model.bin',
    'best.tmp',
    'checkpoint-5/model.bin',
    'last/checkpoint-5/model.bin',
    'old/model.bin',
  ]
  await using box = await sandbox(Object.fromEntries(names.map(name => [name, 'weights'])))

  const isCheckpoint = await checkpointTest({ prune: ['checkpoint-*', '**/checkpoint-*'] })
  const { valid } = await findModels(box.dir, ['**/*.bin', '**/*.tmp'], isCheckpoint)

  assert.equal(
    valid.map(({ name }) => name),
    ['model.bin', 'old/model.bin'],
  )
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
    'core/saved/x': 1,
    'core/a': onnxModel(),
  })
  symlinkSync('../elsewhere/a.onnx', box.path('core/link.onnx'))
  symlinkSync('../elsewhere', box.path('core/linked'))
  linkSync(box.path('core/a'), box.path('core/twin.onnx'))

  const { valid, rejected } = await findModels(box.path('core'), ['*.onnx', 'linked/*.onnx', 'saved/'])

  assert.equal(valid, [])
  assert.equal(rejected, [
    {
      path: box.path('core/folder.onnx'),
      reason: 'is a folder, not a regular file; if what is in it is meant, name "folder.onnx/*" in models',
    },
    { path: box.path('core/link.onnx'), reason: 'is a symbolic link, not a regular file' },
    {
      path: box.path('core/saved'),
      reason: 'is a folder, not a regular file; if what is in it is meant, name "saved/*" in models',
    },
    { path: box.path('core/twin.onnx'), reason: 'has 2 hard links, so it can change under another name' },
  ])
})

test('findModels() takes a folder for the way to what is in it, where globs mean that', async () => {
  await using box = await sandbox({ 'x/a.pb': 1, 'x/assets/deep/b.pb': 1, 'x/c.pb/d.pb': 1, 'saved/e.pb': 1 })
  mkdirSync(box.path('x/empty/er'), { recursive: true })

  const { valid, rejected } = await findModels(box.dir, ['x/**', '*'])

  assert.equal(
    valid.map(({ name }) => name),
    ['x/a.pb', 'x/assets/deep/b.pb', 'x/c.pb/d.pb'],
  )
  assert.equal(
    rejected.map(({ path }) => path),
    [box.path('saved')],
  )
})

test('findModels() refuses a FIFO without waiting for its writer', async () => {
  await using box = await sandbox()
  spawnSync('mkfifo', [box.path('pipe.onnx'), box.path('pipe.pkl')])

  const { status, stdout } = checkApart(box.dir, ['*.onnx', '*.pkl'])

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

test('publishedFiles() names models, valid or not, external data, the manifest and the generation', async () => {
  await using box = await sandbox({ 'folder.onnx/x': 1, 'other.tmp': 1, 'work/c.onnx': onnxModel() })
  await trainAndPublish(box.dir, {
    'a.onnx': onnxModel({ external: [{ location: 'a.tmp' }] }),
    'a.tmp': 'data',
  })
  writeFileSync(box.path('b.onnx'), onnxModel({ external: [{ location: 'b.tmp' }] }))
  writeFileSync(box.path('b.tmp'), 'data')
  writeFileSync(box.path('broken.onnx'), 'garbage')
  symlinkSync('a.tmp', box.path('link.onnx'))

  const files = await publishedFiles(box.dir, ['*.onnx'])

  const names = ['a.onnx', 'a.tmp', 'b.onnx', 'b.tmp', 'broken.onnx', 'generations/1', 'manifest.json']
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

  const files = await publishedFiles(box.dir, ['*.onnx'])

  assert.equal(files.sort(), [box.path('a.tmp'), box.path('generations/1'), box.path('manifest.json')])
})

test('supersededFiles() gives generations before the current one whole, and of those after it all but the manifest', async () => {
  await using box = await sandbox()
  const options = { keepGenerations: 5 }
  for (const producer of ['a', 'b', 'c'])
    await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer }) }, { options })
  await rollBack('core', box.dir, generationOf(box.dir, 2))

  const superseded = supersededFiles(box.dir)
  const kept = await publishedFiles(box.dir, ['*.onnx'])

  assert.equal(superseded, [box.path('generations/1'), box.path('generations/3/core.onnx')])
  assert.ok(kept.includes(box.path('generations/3/manifest.json')))
  assert.ok(kept.includes(box.path('generations/2')))
})

test('supersededFiles() gives a generation file by file that has files of the current one', async () => {
  await using box = await sandbox({ 'mine.onnx': onnxModel() })
  const { adopt: mine } = await checkPublished(box.dir, globs)
  await adopt(box.dir, 'core', mine, globs)
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer: 'trained' }) })

  const superseded = supersededFiles(box.dir)

  assert.is(statSync(box.path('generations/1/mine.onnx')).ino, statSync(box.path('current/mine.onnx')).ino)
  assert.equal(superseded, [box.path('generations/1/mine.onnx')])
})

test('a folder that this user cannot look into is told in one line, with its path and a remedy', async () => {
  await using box = await sandbox()
  chmodSync(box.dir, 0o755)
  await trainAndPublish(box.path('core'), { 'core.onnx': onnxModel() })
  chmodSync(box.path('core'), 0o600)
  const looks = [checkPublished, verifyPublished]
  const faults: string[] = []
  await asNobody(async () => {
    for (const look of looks) faults.push((await failure(() => look(box.path('core'), globs))).message)
    const error = await failure(() => recover(box.path('core')))
    faults.push(error.message)
    assert.is(error.exitCode, 3)
  })
  chmodSync(box.path('core'), 0o755)

  for (const fault of faults)
    assert.match(fault, /^Cannot .+\/core: EACCES: .* '\S+\/core\/\w+.*'; this user must have access there$/)
})

test('publishedFiles() fails where it cannot list, so that nothing is pruned', async () => {
  await using box = await sandbox({ core: 1 })

  const files = await publishedFiles(box.path('core'), ['*.onnx']).catch((error: Error) => error.message)

  assert.match(String(files), /core is a file, expected a folder; move it away$/)
})

test('findModels() finds a model beside folders that are deeper than a path can name', async () => {
  await using box = await sandbox({ 'a/core.onnx': onnxModel() })
  using _deep = digFolders(box.dir, { levels: 60, name: 'd'.repeat(200) }, () => {})

  const { valid, rejected } = await findModels(box.dir, ['**/*.onnx'])

  assert.equal([valid.map(({ name }) => name), rejected], [['a/core.onnx'], []])
})

test.run()
