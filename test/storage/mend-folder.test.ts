import { chownSync, linkSync, mkdirSync, statSync, symlinkSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { giveFolder, mendWork } from '../../lib/storage/mend-folder.ts'
import { failure } from '../support/failure.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const asRoot = skipUnless(test, process.getuid?.() === 0, 'needs root')

asRoot(
  'giveFolder() gives everything in a folder, but what has a name elsewhere and what links lead to',
  async () => {
    await using box = await sandbox({ 'work/a': 1, 'work/deep/b': 1, 'outside/c': 1, 'outside/d': 1 })
    linkSync(box.path('outside/c'), box.path('work/c'))
    symlinkSync('../outside/d', box.path('work/d'))

    const isGiven = await giveFolder(box.path('work'), 4242)

    const owners = ['work', 'work/a', 'work/deep', 'work/deep/b', 'outside/c', 'outside/d'].map(
      name => statSync(box.path(name)).uid,
    )
    assert.is(isGiven, true)
    assert.equal(owners, [4242, 4242, 4242, 4242, 0, 0])
  },
)

asRoot('giveFolder() gives the folders of others in one that is given already', async () => {
  await using box = await sandbox({ 'work/mine': 1, 'work/others/a': 1 })
  for (const name of ['work', 'work/mine']) chownSync(box.path(name), 4242, 4242)

  await giveFolder(box.path('work'), 4242)

  assert.is(statSync(box.path('work/others/a')).uid, 4242)
})

test('mendWork() makes what is missing, and refuses a link in the place of the output folder', async () => {
  await using box = await sandbox({ 'outside/tmp/precious': 1 })
  mkdirSync(box.path('job'))

  await mendWork(box.path('job/work'))
  symlinkSync('../outside', box.path('job/linked'))
  const { exitCode, message } = await failure(() => mendWork(box.path('job/linked')))

  assert.ok(statSync(box.path('job/work/tmp')).isDirectory())
  assert.is(exitCode, 3)
  assert.match(message, 'symbolic link; remove it')
  assert.ok(statSync(box.path('outside/tmp/precious')).isFile())
})

test.run()
