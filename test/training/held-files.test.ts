import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import * as assert from 'uvu/assert'

import { accountOf, capOf } from '../../lib/storage/capacity.ts'
import { measure } from '../../lib/storage/measure.ts'
import { heldFiles, openEntries } from '../../lib/training/held-files.ts'
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

test('heldFiles() gives the size of deleted files that are open, once each', async () => {
  await using box = await sandbox({ kept: 5000, 'hid den': 3 * MIB })
  const script = `exec 3<"$1/kept" 4<"$1/hid den" 5<"$1/hid den"; rm "$1/hid den"; exec sleep 60`
  const child = spawn('bash', ['-c', script, 'bash', box.dir], { stdio: 'ignore' })

  const bytes = await until('it is deleted', () => deletedBytes(child.pid!, box.dir))

  child.kill('SIGKILL')
  assert.is(bytes, 3 * MIB)
})

test('openEntries() finds the files that are open, and the folders that they are in', async () => {
  await using box = await sandbox({
    'work/a.tmp': 1,
    'work/b.tmp': 1,
    'work/run-1/deep/c': 1,
    'work/run-2/d': 1,
  })
  const script = `exec 3<"$1/work/a.tmp" 4<"$1/work/run-1/deep/c"; echo; exec sleep 60`
  const child = spawn('bash', ['-c', script, 'bash', box.dir], { stdio: ['ignore', 'pipe', 'ignore'] })
  await once(child.stdout!, 'data')
  const { prunable } = await measure(box.dir, { prune: ['run-*'] })

  const open = await openEntries(prunable, [child.pid!], box.dir)

  child.kill('SIGKILL')
  assert.equal([...open].map(({ name }) => name).sort(), ['a.tmp', 'run-1'])
})

for (const [how, keep] of Object.entries({
  'deleted and closed but still mapped': 'm = mmap.mmap(f.fileno(), 0); f.close(); os.unlink(sys.argv[1])',
  'deleted, and still open and mapped': 'm = mmap.mmap(f.fileno(), 0); os.unlink(sys.argv[1])',
  'held by a thread whose process has lost its first one':
    'os.unlink(sys.argv[1]); threading.Thread(target=lambda: time.sleep(60)).start(); ctypes.CDLL(None).pthread_exit(None)',
})) {
  withPython(`heldFiles() gives the size of a file that is ${how}, once`, async () => {
    await using box = await sandbox({ held: 2 * MIB })
    const script = `import ctypes, mmap, os, sys, threading, time
f = open(sys.argv[1], 'r+b'); ${keep}; time.sleep(60)`
    const child = spawn('python3', ['-c', script, box.path('held')], { stdio: 'ignore' })

    const bytes = await until('it is deleted', () => deletedBytes(child.pid!, box.dir))

    child.kill('SIGKILL')
    assert.is(bytes, 2 * MIB)
  })
}

asRoot('heldFiles() gives all of a deleted file of which one page is mapped', async () => {
  await using box = await sandbox({ held: 2 * MIB })
  const script = `import ctypes, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR); libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
libc.mmap(None, 4096, 1, 1, fd, 0); os.unlink(sys.argv[1]); os.close(fd); time.sleep(60)`
  const child = spawn('python3', ['-c', script, box.path('held')], { stdio: 'ignore' })

  const bytes = await until('it is deleted', () => deletedBytes(child.pid!, box.dir))

  child.kill('SIGKILL')
  assert.is(bytes, 2 * MIB)
})

withPython('heldFiles() gives the size of a deleted folder that a process is in', async () => {
  await using box = await sandbox()
  // On ext4 a folder does not shrink; on a filesystem where it does there is less to hold.
  const script = `import os, sys, time
os.mkdir(sys.argv[1]); os.chdir(sys.argv[1])
names = [str(n) + 'n' * 200 for n in range(500)]
for name in names: os.mknod(name)
for name in names: os.unlink(name)
print(512 * os.stat('.').st_blocks, flush=True)
os.rmdir(sys.argv[1]); time.sleep(60)`
  const child = spawn('python3', ['-c', script, box.path('held')], { stdio: ['ignore', 'pipe', 'ignore'] })
  const [said] = await once(child.stdout!, 'data')

  const bytes = await until('it is deleted', () => deletedBytes(child.pid!, box.dir))

  child.kill('SIGKILL')
  assert.is(bytes, Number(said))
})

asRoot('heldFiles() knows a deleted file of the folder that was opened through another mount', async () => {
  const alias = mkdtempSync('/var/lib/ransomeye-test-')
  await using box = await sandbox({ 'core/held': 2 * MIB })
  spawnSync('mount', ['--bind', box.dir, alias])
  const child = spawn('sh', ['-c', 'exec 3<"$0"; rm "$0"; exec sleep 60', `${alias}/core/held`])
  try {
    const bytes = await until('it is deleted', () => deletedBytes(child.pid!, box.path('core')))

    assert.is(bytes, 2 * MIB)
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
    spawnSync('umount', [alias])
    rmdirSync(alias)
  }
})

test('heldFiles() gives the size of a deleted program that runs', async () => {
  await using box = await sandbox()
  copyFileSync('/bin/sleep', box.path('program'))
  const { size } = statSync(box.path('program'))
  const child = spawn(box.path('program'), ['60'])
  await once(child, 'spawn')
  unlinkSync(box.path('program'))

  const bytes = await deletedBytes(child.pid!, box.dir)

  child.kill('SIGKILL')
  assert.ok(bytes >= size && bytes < 2 * size, `${bytes} bytes`)
})

async function deletedBytes(pid: number, dir: string): Promise<number> {
  const held = await heldFiles([pid], { dir, sinceMs: Number.POSITIVE_INFINITY, isThorough: false })
  return held.deletedBytes
}

test.run()
