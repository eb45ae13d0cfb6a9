import { spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, unlinkSync, writeSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { accountOf, capOf } from '../../lib/storage/capacity.ts'
import { listOpenFiles } from '../../lib/training/open-files.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const MIB = 2 ** 20
const withPython = skipUnless(test, spawnSync('python3', ['--version']).status === 0, 'needs python3')
const asRoot = skipUnless(test, process.getuid?.() === 0, 'needs root')

test('capOf() is undefined for a folder that shares its filesystem', async () => {
  await using box = await sandbox({ 'core/a': 1 })

  assert.is(capOf(box.path('core'), 2 ** 50), undefined)
})

asRoot('capOf() is the size of a filesystem of its own, unless that is larger than the quota', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('core'))
  spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=10m', 'tmpfs', box.path('core')])

  try {
    assert.is(capOf(box.path('core'), 10 * MIB), 10 * MIB)
    assert.is(capOf(box.path('core'), 9 * MIB), undefined)
  } finally {
    spawnSync('umount', [box.path('core')])
  }
})

asRoot('accountOf() counts files that are deleted but still open', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('core'))
  spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=10m', 'tmpfs', box.path('core')])
  const fd = openSync(box.path('core', 'hidden'), 'w')

  try {
    writeSync(fd, Buffer.alloc(3 * MIB))
    unlinkSync(box.path('core', 'hidden'))
    const { usedBytes, freeBytes } = accountOf(box.path('core'))
    assert.is(usedBytes, 3 * MIB)
    assert.is(freeBytes, 7 * MIB)
  } finally {
    closeSync(fd)
    spawnSync('umount', [box.path('core')])
  }
})

test('listOpenFiles() gives open files with their path, and the size of those that are deleted, once each', async () => {
  await using box = await sandbox({ kept: 5000, 'hid den': 3 * MIB })
  const script = `exec 3<"$1/kept" 4<"$1/hid den" 5<"$1/hid den"; rm "$1/hid den"; exec sleep 60`
  const child = spawn('bash', ['-c', script, 'bash', box.dir], { stdio: 'ignore' })
  const filesHere = () => listOpenFiles([child.pid!]).filter(({ path }) => path.startsWith(box.dir))

  const files = await until('both are open', () => {
    const found = filesHere()
    return found.length === 2 && found.some(({ deletedBytes }) => deletedBytes) ? found : undefined
  })

  child.kill('SIGKILL')
  assert.equal(files.map(({ path, deletedBytes }) => [path, deletedBytes]).sort(), [
    [box.path('hid den'), 3 * MIB],
    [box.path('kept'), 0],
  ])
})

withPython('listOpenFiles() finds a file that is deleted and closed but still mapped', async () => {
  await using box = await sandbox({ mapped: 2 * MIB })
  const script = `import mmap, os, sys, time
f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); os.unlink(sys.argv[1]); time.sleep(60)`
  const child = spawn('python3', ['-c', script, box.path('mapped')], { stdio: 'ignore' })

  const file = await until('it is deleted', () =>
    listOpenFiles([child.pid!]).find(({ path, deletedBytes }) => path === box.path('mapped') && deletedBytes),
  )

  child.kill('SIGKILL')
  assert.is(file.deletedBytes, 2 * MIB)
})

test.run()
