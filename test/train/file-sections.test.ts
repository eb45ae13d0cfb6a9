import { createHash } from 'node:crypto'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { readFileSections } from '../../scripts/train/file-sections.ts'
import { Random } from '../../scripts/train/random.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('readFileSections() passes over copies, small files and links', async () => {
  await using box = await sandbox({ 'a/one': text(1), 'b/copy': text(1), 'c/two': text(2), 'd/small': 8191 })
  await using outside = await sandbox({ secret: text(3) })
  symlinkSync(outside.path('secret'), box.path('a/link'))
  symlinkSync(outside.dir, box.path('folder'))

  const sections = readFileSections([box.dir, box.path('a')], 10, new Random(Uint32Array.of(1, 2, 3, 4)))

  const contents = sections.map(({ bytes }) => bytes.toString()).sort()
  assert.equal(contents, [text(1), text(2)].sort())
})

test('readFileSections() takes the middle of a large file, and names its package', async () => {
  await using box = await sandbox()
  const bytes = Buffer.concat([
    Buffer.alloc(100_000, 'a'),
    Buffer.alloc(65_536, 'b'),
    Buffer.alloc(100_000, 'c'),
  ])
  mkdirSync(box.path('share/doc/bash'), { recursive: true })
  writeFileSync(box.path('share/doc/bash/manual'), bytes)

  const [section] = readFileSections([box.path('share')], 1, new Random(Uint32Array.of(1, 2, 3, 4)))

  assert.is(section!.group, box.path('share/doc/bash'))
  assert.ok(section!.bytes.equals(Buffer.alloc(65_536, 'b')))
})

function text(seed: number): string {
  const lines = Array.from({ length: 200 }, (_, line) =>
    createHash('sha256').update(`${seed} ${line}`).digest('hex'),
  )
  return lines.join('\n')
}

test.run()
