import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { createServer } from 'node:net'
import * as assert from 'uvu/assert'
import { openPlain, readPlain, reasonOf, sha256, statPlain } from '../../lib/system/plain-file.ts'
import { sha256Of } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('sha256() hashes a file of several pieces, from its start', async () => {
  const content = Buffer.alloc(3 * 2 ** 20 + 1, 'ransomeye')
  await using box = await sandbox({ a: content })
  const { fd } = openPlain(box.dir, 'a')

  const hashes = [await sha256(fd), await sha256(fd)]
  closeSync(fd)

  assert.equal(hashes, [sha256Of(content), sha256Of(content)])
})

test('readPlain() reads up to its limit', async () => {
  await using box = await sandbox({ a: 'äb' })

  assert.is(readPlain(box.dir, 'a', 3), 'äb')
  assert.is(
    refusal(() => readPlain(box.dir, 'a', 2)),
    'has 3 bytes, at most 2 are read',
  )
})

test('statPlain() refuses a socket, and a file in the place of a folder', async () => {
  await using box = await sandbox({ a: 1 })
  const server = createServer().listen(box.path('s'))
  await once(server, 'listening')

  const reasons = ['s', 'a/b', 'c/d'].map(name => refusal(() => statPlain(box.dir, name)))
  server.close()

  assert.equal(reasons, [
    'is a socket, not a regular file',
    'is not inside a folder: a is a regular file',
    'is missing',
  ])
})

test('reasonOf() gives the reason of the system too, and throws a defect on', async () => {
  await using box = await sandbox({ a: 1 })
  const name = 'n'.repeat(300)

  assert.match(refusal(() => statPlain(box.dir, name)) ?? '', /^cannot be read \(ENAMETOOLONG: /)
  assert.throws(() => reasonOf(new TypeError('a defect')), /a defect/)
})

function refusal(attempt: () => unknown): string | undefined {
  try {
    attempt()
    return undefined
  } catch (error) {
    return reasonOf(error)
  }
}

test.run()
