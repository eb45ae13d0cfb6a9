import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { findHolder } from '../../lib/run/lock-holders.ts'
import { chooseModelsDir, openModelsDir } from '../../lib/settings/folders.ts'
import { MIB } from '../../lib/text.ts'
import { failure } from '../support/failure.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'
import { must } from '../support/volume-rig.ts'

const asRoot = skipUnless(test, process.getuid?.() === 0, 'needs root')

for (const dryRun of [true, false]) {
  test(`openModelsDir() refuses a file as what it is, ${dryRun ? 'to look at' : 'to write to'}`, async () => {
    await using box = await sandbox({ models: 'a file' })

    const { exitCode, message } = await failure(async () => openModelsDir(box.path('models'), dryRun))

    assert.is(exitCode, 3)
    const expected = dryRun
      ? /Cannot use the models folder .*ENOTDIR.*; choose another: --models-dir DIR$/
      : /models is a file, expected a folder; move it away$/
    assert.match(message, expected)
  })
}

test('chooseModelsDir() refuses a name that is not UTF-8, because Node.js would make another one of it', async () => {
  const { exitCode, message } = await failure(async () => chooseModelsDir('/tmp/bad\ufffd', undefined))

  assert.is(exitCode, 64)
  assert.match(message, /not UTF-8/)
})

for (const closed of ['above', 'above/models']) {
  asRoot(`openModelsDir() says whose ${closed} is to a user who may not look into it`, async () => {
    await using box = await sandbox()
    chmodSync(box.dir, 0o755)
    mkdirSync(box.path('above/models'), { recursive: true })
    chmodSync(box.path(closed), 0o700)

    const { exitCode, message } = await failure(() =>
      asNobody(async () => openModelsDir(box.path('above/models'), true)),
    )

    assert.is(exitCode, 3)
    assert.match(
      message,
      `; run it as root, the owner of ${box.path(closed)}, or choose another: --models-dir DIR`,
    )
  })
}

asRoot('openModelsDir() advises another folder only where that helps', async () => {
  await using box = await sandbox({ 'disk.img': 0 })
  const disk = box.path('disk')
  mkdirSync(disk)
  truncateSync(box.path('disk.img'), 2 * MIB)
  must('mkfs.ext4', '-q', '-m', '0', '-O', '^has_journal', box.path('disk.img'))
  must('mount', '-o', 'loop', box.path('disk.img'), disk)
  const refusal = async () => (await failure(async () => openModelsDir(join(disk, 'models'), false))).message
  try {
    spawnSync('dd', ['if=/dev/zero', `of=${disk}/big`, 'bs=1k'])
    const full = await refusal()
    must('mount', '-o', 'remount,ro', disk)
    const readOnly = await refusal()

    assert.match(full, /ENOSPC.*the disk is full: free some space on it$/)
    assert.match(readOnly, /EROFS.*; mount its disk, writable, or choose another: --models-dir DIR$/)
  } finally {
    must('umount', disk)
  }
})

asRoot('findHolder() says whose the models folder is to a user who may not look at the lock', async () => {
  await using box = await sandbox()
  chmodSync(box.dir, 0o755)
  mkdirSync(box.path('.trainer'), { mode: 0o700 })

  const { exitCode, message } = await failure(() => asNobody(async () => findHolder(box.path('.trainer'))))

  assert.is(exitCode, 3)
  assert.match(message, /Cannot look at .*EACCES/)
  assert.match(message, `; run it as root, the owner of ${box.dir}`)
})

test.run()
