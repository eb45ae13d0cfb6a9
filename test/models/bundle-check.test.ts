import { spawnSync } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import * as assert from 'uvu/assert'
import { checkBundle } from '../../lib/models/bundle/check.ts'
import { signText } from '../../lib/models/bundle/signature.ts'
import { collect, writeTar } from '../../lib/models/bundle/tarball.ts'
import { failure } from '../support/failure.ts'
import { rsaPair } from '../support/keys.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { sha256Of } from '../support/publishing.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const { publicKey, privateKey } = rsaPair()
const model = onnxModel()
const manifest = {
  metadata: { models: ['core.onnx'], sizes: { 'core.onnx': model.length } },
  files: { 'core.onnx': sha256Of(model) },
}
const verifiedModel = { path: 'core.onnx', bytes: model.length, sha256: sha256Of(model) }
const good = { ...signed(manifest), 'core.onnx': model }

/** The front of a bundle. */
function signed(content: unknown): { 'manifest.json': string; 'manifest.sig': string } {
  const text = typeof content === 'string' ? content : JSON.stringify(content)
  return { 'manifest.json': text, 'manifest.sig': signText(text, createPrivateKey(privateKey)) }
}

async function pack(files: [name: string, content: string | Buffer][]): Promise<Buffer> {
  const contents = files.map(([name, content]) => ({ name, content: [Buffer.from(content)] }))
  return collect(writeTar(contents.map(it => ({ ...it, bytes: it.content[0]!.length }))))
}

function checkFile(file: string) {
  return checkBundle(file, createPublicKey(publicKey))
}

/** Why the archive is not trusted; it must not be. */
async function refusalOf(archive: Buffer): Promise<string> {
  await using box = await sandbox({ 'core.tar.gz': archive })
  const { verified, differences } = await checkFile(box.path('core.tar.gz'))
  assert.equal([verified, differences.map(({ path }) => path)], [[], [box.path('core.tar.gz')]])
  return differences[0]!.reason
}

test('checkBundle() accepts a bundle that is whole and signed, and names its files', async () => {
  await using box = await sandbox({ 'core.tar.gz': gzipSync(await pack(Object.entries(good))) })

  const found = await checkFile(box.path('core.tar.gz'))

  assert.equal(found, { verified: [verifiedModel], adopted: [], differences: [] })
})

const flipped = Buffer.from(model)
flipped[flipped.length - 1]! ^= 1
const { 'core.onnx': _, ...front } = good

for (const [what, files, reason] of [
  [
    'a file with other content',
    { ...good, 'core.onnx': flipped },
    'core.onnx with content that was not published',
  ],
  [
    'a longer file',
    { ...good, 'core.onnx': Buffer.concat([model, model]) },
    `but ${model.length} were published`,
  ],
  ['a file more', { ...good, 'extra.onnx': model }, 'extra.onnx that its manifest.json does not'],
  ['a file less', front, 'lacks core.onnx'],
  ['a way out of its folder', { ...good, '../core.onnx': model }, '../core.onnx that its manifest.json'],
  ['an absolute name', { ...good, '/etc/passwd': 'root::0:0' }, '/etc/passwd that its manifest.json'],
  ['an escape sequence in a name', { ...good, '\x1b[2J': '' }, String.raw`\x1b[2J that its manifest`],
  ['a changed manifest', { ...good, 'manifest.json': `${good['manifest.json']} ` }, 'was not signed with'],
  ['an empty signature', { ...good, 'manifest.sig': '' }, 'was not signed with'],
  [
    'files before the manifest',
    { 'core.onnx': model, ...signed(manifest) },
    'core.onnx where manifest.json must',
  ],
  [
    'no signature',
    { 'manifest.json': good['manifest.json'], 'core.onnx': model },
    'core.onnx where manifest.sig',
  ],
  ['nothing', {}, 'nothing where manifest.json must come'],
  ['a huge manifest', { 'manifest.json': ' '.repeat(2 ** 23) }, 'manifest.json of 8388608 bytes, at most'],
  ['a signed manifest that is no JSON', signed('{'), 'describes no model'],
  ['a signed manifest of nothing', signed({ metadata: {}, files: {} }), 'describes no model'],
  ['a signed way out', signed({ metadata: {}, files: { '../x': sha256Of('x') } }), 'describes no model'],
  [
    'a signed name that JavaScript hides',
    {
      ...signed(
        `{"metadata": {}, "files": {"core.onnx": "${sha256Of(model)}", "__proto__": "${sha256Of('')}"}}`,
      ),
      'core.onnx': model,
    },
    'describes no model',
  ],
  [
    'a hash that is no text',
    signed({ metadata: {}, files: { 'core.onnx': [sha256Of(model)] } }),
    'describes no',
  ],
  [
    'a signed model_file elsewhere',
    { ...signed({ ...manifest, metadata: { model_file: '/etc/passwd' } }), 'core.onnx': model },
    'names "/etc/passwd" in metadata.model_file, which is none of its models',
  ],
  [
    'a model that was not trained',
    { ...signed({ ...manifest, metadata: { adopted: ['core.onnx'] } }), 'core.onnx': model },
    'names "core.onnx" in metadata.adopted: it was not trained',
  ],
  [
    'a signed second manifest',
    signed({ metadata: {}, files: { 'manifest.sig': sha256Of('') } }),
    'describes no',
  ],
] as [string, Record<string, string | Buffer>, string][]) {
  test(`checkBundle() refuses a bundle with ${what}`, async () => {
    const archive = gzipSync(await pack(Object.entries(files)))

    assert.match(await refusalOf(archive), reason)
  })
}

test('checkBundle() refuses a bundle with a file twice', async () => {
  const archive = gzipSync(await pack([...Object.entries(good), ['core.onnx', model]]))

  assert.match(await refusalOf(archive), 'core.onnx twice')
})

test('checkBundle() refuses a bundle that another key has signed', async () => {
  await using box = await sandbox({ 'core.tar.gz': gzipSync(await pack(Object.entries(good))) })
  const other = createPublicKey(rsaPair('other').publicKey)

  const { differences } = await checkBundle(box.path('core.tar.gz'), other)

  assert.match(differences[0]!.reason, 'was not signed with the private half of this key')
})

// Let the system's tar pack the files of a good bundle and something else beside them.
for (const [what, options, make, reason] of [
  ['a symbolic link', ['--format=ustar'], it => symlinkSync('/etc/passwd', it), 'a symbolic link, extra'],
  ['a folder', ['--format=ustar'], it => mkdirSync(it), 'a folder, extra/'],
  ['a FIFO', ['--format=ustar'], it => spawnSync('mkfifo', [it]), 'a FIFO, extra'],
  [
    'a hard link',
    ['--format=gnu'],
    it => linkSync(it.replace(/extra$/, 'core.onnx'), it),
    'a hard link, extra',
  ],
  [
    'a sparse file',
    ['--format=gnu', '-S'],
    it => spawnSync('truncate', ['-s1M', it]),
    'something unknown, extra',
  ],
  ['a PAX header', ['--format=pax'], it => writeFileSync(it, ''), 'an extended header, '],
  [
    'a global PAX header',
    ['--format=pax', '--pax-option=path=x'],
    it => writeFileSync(it, ''),
    'an extended header, ',
  ],
] as [string, string[], (extra: string) => void, string][]) {
  test(`checkBundle() refuses a bundle with ${what}`, async () => {
    await using box = await sandbox(good)
    make(box.path('extra'))

    const archive = tarOf(box, [...options, ...Object.keys(good), 'extra'])

    assert.match(await refusalOf(archive), reason)
  })
}

for (const format of ['ustar', 'gnu']) {
  test(`checkBundle() accepts a good bundle that system tar has put together as ${format}`, async () => {
    await using box = await sandbox(good)
    writeFileSync(box.path('again.tar.gz'), tarOf(box, [`--format=${format}`, ...Object.keys(good)]))

    const found = await checkFile(box.path('again.tar.gz'))

    assert.equal(found, { verified: [verifiedModel], adopted: [], differences: [] })
  })
}

/** Let the system's tar pack the box's files. */
function tarOf(box: Sandbox, args: string[]): Buffer {
  const { status, stdout, stderr } = spawnSync('tar', ['-cz', '-C', box.dir, ...args], { maxBuffer: 2 ** 26 })
  assert.is(status, 0, String(stderr))
  return stdout
}

for (const [what, offset, bytes, reason] of [
  ['a device', 156, '3', 'a device, core.onnx'],
  ["GNU's long name", 156, 'L', 'an extended header, core.onnx'],
  ['a binary size', 124, '\x80\0\0\0\0\0\0\0\0\0\x01\0', 'core.onnx with a size that is not a plain number'],
  ['a negative size', 124, '-0000000001\0', 'core.onnx with a size that is not a plain number'],
  ['a size of 8 GiB', 124, '77777777777\0', 'core.onnx with 8589934591 bytes, but'],
  ['a name that is not UTF-8', 0, '\xff', String.raw`not UTF-8: \xffore.onnx`],
  ['another format', 257, 'xxxxx', 'does not hold a tar file'],
] as const) {
  test(`checkBundle() refuses a header with ${what}`, async () => {
    const archive = gzipSync(forge(await pack(Object.entries(good)), offset, bytes))

    assert.match(await refusalOf(archive), reason)
  })
}

test('checkBundle() refuses a header whose checksum is wrong', async () => {
  const tar = await pack(Object.entries(good))
  tar[tar.lastIndexOf('core.onnx') + 100]! ^= 1

  assert.match(await refusalOf(gzipSync(tar)), 'does not hold a tar file, or is damaged')
})

/** Change some bytes of the last file's header, and mend its checksum. */
function forge(tar: Buffer, offset: number, bytes: string): Buffer {
  const start = tar.lastIndexOf('core.onnx')
  const header = tar.subarray(start, start + 512)
  header.write(bytes, offset, 'latin1')
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148)
  return tar
}

test('checkBundle() refuses bytes that are hidden between files or after the end', async () => {
  const between = await pack(Object.entries(good))
  between[between.lastIndexOf('core.onnx') + 512 + model.length] = 1
  const after = Buffer.concat([await pack(Object.entries(good)), Buffer.from('hidden')])

  assert.match(await refusalOf(gzipSync(between)), 'bytes between its files')
  assert.match(await refusalOf(gzipSync(after)), 'bytes after its end')
})

test('checkBundle() refuses bytes after the compressed ones, behind a zero too', async () => {
  const archive = gzipSync(await pack(Object.entries(good)))

  for (const more of ['hidden', '\0hidden', `\0${'hidden'.repeat(100_000)}`]) {
    assert.match(await refusalOf(Buffer.concat([archive, Buffer.from(more)])), /after its end|damaged/)
  }
})

test('checkBundle() takes a file for what it is called, whatever JavaScript knows by that name', async () => {
  const content = { metadata: {}, files: { toString: sha256Of(model) } }
  await using box = await sandbox({
    'core.tar.gz': gzipSync(await pack([...Object.entries(signed(content)), ['toString', model]])),
  })

  const { verified, differences } = await checkFile(box.path('core.tar.gz'))

  assert.equal([verified.map(({ path }) => path), differences], [['toString'], []])
})

test('checkBundle() stops reading a bundle that unpacks to endless zeros', async () => {
  const bomb = gzipSync(Buffer.concat([await pack(Object.entries(good)), Buffer.alloc(2 ** 26)]))

  assert.match(await refusalOf(bomb), 'bytes after its end')
})

test('checkBundle() refuses what is cut off at any place, and what is no archive', async () => {
  const tar = await pack(Object.entries(good))
  const archive = gzipSync(tar)
  const cutTars = Array.from({ length: tar.length / 512 - 1 }, (_, n) => gzipSync(tar.subarray(0, n * 512)))
  const cutArchives = [0, 1, 9, 20, archive.length / 2, archive.length - 1].map(it => archive.subarray(0, it))

  for (const cut of [...cutTars, ...cutArchives, Buffer.from('no archive'), gzipSync('no archive')]) {
    assert.match(await refusalOf(cut), /ends too early|not a gzip file|not a tar file/)
  }
})

test('checkBundle() refuses a bundle with any byte changed', async () => {
  const tar = await pack(Object.entries(good))

  for (let at = 0; at < tar.length; at += 37) {
    const changed = Buffer.from(tar)
    changed[at]! ^= 0xff
    await refusalOf(gzipSync(changed))
  }
})

for (const [what, make, reason] of [
  ['is missing', () => {}, 'it cannot be read (ENOENT'],
  ['is a folder', it => mkdirSync(it), 'it is a folder, not a regular file'],
  ['is a FIFO', it => spawnSync('mkfifo', [it]), 'it is a FIFO, not a regular file'],
] as [string, (file: string) => void, string][]) {
  test(`checkBundle() says that a bundle that ${what} cannot be checked, not that it differs`, async () => {
    await using box = await sandbox()
    const file = box.path('core.tar.gz')
    make(file)

    const { exitCode, message } = await failure(() => checkFile(file))

    assert.is(exitCode, 3)
    assert.match(message, `Cannot check ${file}: ${reason}`)
    assert.match(message, '; name a bundle by --bundle')
  })
}

test.run()
