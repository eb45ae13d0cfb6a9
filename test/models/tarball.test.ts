import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { collect, readTar, type TarEntry, writeTar } from '../../lib/models/bundle/tarball.ts'
import { failure } from '../support/failure.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const entryOf = (name: string): TarEntry => {
  const content = Buffer.from(contentOf(name))
  return { name, bytes: content.length, content: [content] }
}

const names = [
  'a',
  'modèle/重み.onnx',
  'n'.repeat(100),
  `${'folder/'.repeat(20)}model.onnx`,
  `${'f'.repeat(155)}/${'n'.repeat(100)}`,
  'empty',
  'block',
]

test('writeTar() writes what system tar reads: long names, any script, an empty file, contents of any length', async () => {
  await using box = await sandbox()

  writeFileSync(box.path('x.tar'), await collect(writeTar(names.map(entryOf))))

  const options = { cwd: box.dir, encoding: 'utf8', env: { ...process.env, LC_ALL: 'C.UTF-8' } } as const
  const { stdout, stderr } = spawnSync('tar', ['-tf', 'x.tar'], options)
  assert.equal(stdout.trimEnd().split('\n'), names)
  assert.is(stderr, '')
  for (const name of names) {
    assert.is(spawnSync('tar', ['-xOf', 'x.tar', name], options).stdout, contentOf(name))
  }
})

test('readTar() gives back what writeTar() was given, however the bytes are cut into pieces', async () => {
  const tar = await collect(writeTar(names.map(entryOf)))

  for (const pieceBytes of [1, 511, 512, 513, tar.length]) {
    const read: [string, string][] = []
    for await (const { name, content } of readTar(pieces(tar, pieceBytes))) {
      read.push([name, String(await collect(content))])
    }
    assert.equal(
      read,
      names.map(name => [name, contentOf(name)]),
    )
  }
})

for (const [what, entry, reason] of [
  ['a name that cannot be cut', entryOf('n'.repeat(101)), 'its name is too long'],
  ['a name that is too long in all', entryOf(`${'f'.repeat(156)}/n`), 'its name is too long'],
  [
    'a file of 8 GiB',
    { ...entryOf('huge'), bytes: 8 * 2 ** 30 },
    'huge into a tar file: it has 8589934592 bytes',
  ],
] as const) {
  test(`writeTar() refuses ${what}`, async () => {
    const { message } = await failure(() => collect(writeTar([entry])))

    assert.match(message, reason)
  })
}

function contentOf(name: string): string {
  if (name === 'empty') return ''
  return name === 'block' ? 'b'.repeat(512) : name.repeat(100)
}

async function* pieces(bytes: Buffer, pieceBytes: number): AsyncGenerator<Buffer, void> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
}

test.run()
