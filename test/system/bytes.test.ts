import * as assert from 'uvu/assert'
import { escapeBytes } from '../../lib/system/bytes.ts'
import { test } from '../support/test.ts'

const bytesOf = (text: string) => Buffer.from(text).toString('latin1')

test('escapeBytes() shows a path that a program can name as it is, and of a longer one its beginning and its end', () => {
  const longest = `/${'d'.repeat(4095)}`

  assert.is(escapeBytes(longest), longest)
  // 6 and 9 bytes of 2048 at each end are the names.
  const [head, tail] = ['/first'.padEnd(2048, '/d'), `${'/d'.repeat(1020)}/last.tmp`.slice(-2048)]
  assert.is(escapeBytes(`/first${'/d'.repeat(500_000)}/last.tmp`), `${head}…${tail}`)
})

test('escapeBytes() cuts a long path between characters, and shows each byte that belongs to none', () => {
  const shown = escapeBytes(bytesOf(`/${'€'.repeat(3000)}`))

  // Three bytes a character: 682 of them fit behind the slash in 2048 bytes, and 682 into the last 2048.
  assert.is(shown, `/${'€'.repeat(682)}…${'€'.repeat(682)}`)
  assert.is(escapeBytes('\xff'.repeat(100_000)), `${'\\xff'.repeat(2048)}…${'\\xff'.repeat(2048)}`)
})

test.run()
