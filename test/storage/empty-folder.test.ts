import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { emptyFolder } from '../../lib/storage/empty-folder.ts'
import { digFolders } from '../support/deep-folder.ts'
import { failure } from '../support/failure.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const isRoot = process.getuid?.() === 0

test('emptyFolder() deletes all that is in a folder, links as links, and leaves the folder', async () => {
  await using box = await sandbox({ 'tmp/a': 1, 'tmp/b/c/d': 1, 'tmp/b/-rf': 1, 'outside/e': 1 })
  symlinkSync('../outside', box.path('tmp/link'))
  symlinkSync('nowhere', box.path('tmp/b/broken'))
  execFileSync('mkfifo', [box.path('tmp/fifo')])
  mkdirSync(Buffer.from(`${box.dir}/tmp/\xff`, 'latin1'))
  writeFileSync(Buffer.from(`${box.dir}/tmp/\xff/line\nbreak\xfe`, 'latin1'), 'x')

  await emptyFolder(box.path('tmp'))

  assert.equal(readdirSync(box.path('tmp')), [])
  assert.equal(readdirSync(box.path('outside')), ['e'])
})

test('emptyFolder() empties folders that are read-only, as some caches are', async () => {
  await using box = await sandbox({ 'tmp/cache/module/a': 1, 'tmp/cache/b': 1 })
  chmodSync(box.dir, 0o755)
  if (isRoot) execFileSync('chown', ['-R', 'nobody', box.path('tmp')])
  for (const name of ['tmp/cache/module', 'tmp/cache']) chmodSync(box.path(name), 0o500)

  await asNobody(() => emptyFolder(box.path('tmp')))

  assert.equal(readdirSync(box.path('tmp')), [])
})

test('emptyFolder() empties what lies deeper than a path can name', async () => {
  await using box = await sandbox({ 'tmp/a': 1 })
  using _deep = digFolders(box.path('tmp'), { levels: 1500, name: 'deep' }, innermost => {
    writeFileSync(`${innermost}/a`, 'x')
  })

  await emptyFolder(box.path('tmp'))

  assert.equal(readdirSync(box.path('tmp')), [])
})

test('emptyFolder() names the first thing that it cannot delete, when all else is gone', async () => {
  await using box = await sandbox({ 'tmp/a/b': 1, 'tmp/others/c': 1, 'tmp/others/deep/d': 1, 'tmp/e': 1 })
  chmodSync(box.dir, 0o755)
  if (isRoot) for (const name of ['tmp', 'tmp/a', 'tmp/others/deep']) chownSync(box.path(name), 65534, 65534)
  else chmodSync(box.path('tmp/others'), 0o555)

  const error = await failure(() => asNobody(() => emptyFolder(box.path('tmp'))))

  assert.is(error.code, 'storage')
  assert.ok(error.message.includes(box.path('tmp/others')), error.message)
  assert.match(error.message, /EACCES|EPERM/)
  assert.equal(readdirSync(box.path('tmp'), { recursive: true }).sort(), [
    'others',
    'others/c',
    'others/deep',
  ])
})

test('emptyFolder() gets into a folder of its own user that nobody may look into', async () => {
  await using box = await sandbox()
  chmodSync(box.dir, 0o777)

  await asNobody(async () => {
    mkdirSync(box.path('tmp/closed/deep'), { recursive: true })
    writeFileSync(box.path('tmp/closed/deep/a'), 'x')
    for (const name of ['tmp/closed/deep', 'tmp/closed']) chmodSync(box.path(name), 0)
    await emptyFolder(box.path('tmp'))
  })

  assert.equal(readdirSync(box.path('tmp')), [])
})

test('emptyFolder() refuses a link, and says when there is nothing', async () => {
  await using box = await sandbox({ 'outside/a': 1 })
  symlinkSync('outside', box.path('tmp'))

  for (const name of ['tmp', 'missing']) {
    const error = await failure(() => emptyFolder(box.path(name)))
    assert.is(error.code, 'storage')
    assert.ok(error.message.includes(box.path(name)), error.message)
  }
  assert.ok(existsSync(box.path('outside/a')))
})

skipUnless(
  test,
  isRoot,
  'needs root to mount',
)('emptyFolder() leaves a filesystem that is mounted inside', async () => {
  await using box = await sandbox({ 'tmp/a': 1, 'tmp/mounted/b': 1 })
  execFileSync('mount', ['-t', 'tmpfs', 'none', box.path('tmp/mounted')])
  try {
    writeFileSync(box.path('tmp/mounted/c'), 'x')

    const error = await failure(() => emptyFolder(box.path('tmp')))

    assert.match(error.message, /another filesystem/)
    assert.ok(error.message.includes(box.path('tmp/mounted')), error.message)
    assert.equal(readdirSync(box.path('tmp')), ['mounted'])
    assert.equal(readdirSync(box.path('tmp/mounted')), ['c'])
  } finally {
    execFileSync('umount', [box.path('tmp/mounted')])
  }
})

test.run()
