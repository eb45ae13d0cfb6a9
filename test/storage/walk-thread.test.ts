import { execFileSync } from 'node:child_process'
import { linkSync, lstatSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { SecondThread } from '../../lib/storage/walk-thread.ts'
import type { Folder } from '../../lib/system/bytes.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('SecondThread adds up ordinary files, and leaves every other name to the walk', async () => {
  await using box = await sandbox({
    'a/plain': 5000,
    'a/-rf': 1,
    'a/b.tmp': 10,
    'a/folder/c': 10,
    'a/twin': 10,
  })
  linkSync(box.path('a/twin'), box.path('a/other twin'))
  symlinkSync('plain', box.path('a/link'))
  execFileSync('mkfifo', [box.path('a/fifo')])
  writeFileSync(Buffer.from(`${box.dir}/a/\xff`, 'latin1'), 'x')

  const { bytes, left, pending } = await exchangeAll([box.path('a'), ...Array(3).fill(box.path('a/folder'))])

  const charge = (name: string) =>
    Math.max(lstatSync(box.path(name)).size, lstatSync(box.path(name)).blocks * 512)
  assert.is(bytes, charge('a/plain') + charge('a/-rf'))
  assert.equal(left, [['b.tmp', 'fifo', 'folder', 'link', 'other twin', 'twin', '\xff']])
  assert.is(pending.length, 3)
})

test('SecondThread gives a folder back that it cannot list', async () => {
  await using box = await sandbox({ file: 1 })

  const { bytes, left, pending } = await exchangeAll(Array(4).fill(box.path('file')))

  assert.is(bytes, 0)
  assert.equal(left, [])
  assert.is(pending.length, 4)
})

test('SecondThread takes no folder that it cannot reach by a plain path', async () => {
  const second = new SecondThread({ except: /$^/, add: () => {} })
  const folder = { path: '/a/b', reach: '/proc/self/fd/3', data: undefined }
  const pending = [
    [3, folder, folder, folder],
    [folder, 3, folder, folder],
    ['\xff', 'a', 'a', 'a'].map(folderAt),
  ]

  const isBusy: boolean[] = []
  for (const end = performance.now() + 150; performance.now() < end; ) {
    for (const folders of pending) {
      second.exchange(folders)
      isBusy.push(second.isBusy)
    }
  }

  second.close()
  assert.equal(new Set(isBusy), new Set([false]))
  assert.equal(
    pending.map(({ length }) => length),
    [4, 4, 4],
  )
})

/** Let the thread have its share of folders, a quarter, and wait for it. */
async function exchangeAll(
  paths: string[],
): Promise<{ bytes: number; left: string[][]; pending: unknown[] }> {
  let bytes = 0
  const add = (added: number) => {
    bytes += added
  }
  const second = new SecondThread<undefined>({ except: /\.tmp$/, add })
  const pending = paths.map(folderAt)
  const left: string[][] = []
  await until('the thread has begun', () => {
    second.exchange(pending)
    return second.isBusy
  })
  const rest: typeof pending = []
  await until('the thread is done', () => {
    left.push(...second.exchange(rest).map(({ names }) => names))
    return !second.isBusy
  })
  second.close()
  return { bytes, left, pending: [...pending, ...rest] }
}

function folderAt(path: string): Folder<undefined> {
  return { path, reach: path, data: undefined }
}

test.run()
