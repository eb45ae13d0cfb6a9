import { spawnSync } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import * as assert from 'uvu/assert'
import { checkBundle } from '../../lib/models/bundle/check.ts'
import { writeBundle } from '../../lib/models/bundle/write.ts'
import type { Manifest } from '../../lib/models/manifest.ts'
import { failure } from '../support/failure.ts'
import { rsaPair, writeKey } from '../support/keys.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { filesBelow, sha256Of, trainAndPublish } from '../support/publishing.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const { publicKey, privateKey } = rsaPair()
const external = { location: 'weights/core.data', offset: 0, length: 8 }
const trained = {
  'core.onnx': onnxModel({ external: [external] }),
  'weights/core.data': Buffer.alloc(4096, 7),
}

/** A box in which core has published models. */
async function publishedBox(files: Record<string, string> = {}): Promise<Sandbox> {
  const box = await sandbox({ 'public.pem': publicKey, ...files })
  await trainAndPublish(box.path('core'), trained)
  return box
}

/** Bundle what the box has published. */
async function bundleOf(box: Sandbox, name: string): Promise<Buffer> {
  const { signal } = new AbortController()
  const key = createPrivateKey(privateKey)
  const place = { modelsDir: box.dir, quotasFile: box.path('quotas.json') }
  await writeBundle({ job: 'core', jobDir: box.path('core'), ...place }, key, box.path(name), signal)
  return readFileSync(box.path(name))
}

function editMetadata(model: string, edit: (metadata: Manifest['metadata']) => void): void {
  const file = model.replace('core.onnx', 'manifest.json')
  const manifest = JSON.parse(readFileSync(file, 'utf8'))
  edit(manifest.metadata)
  writeFileSync(file, JSON.stringify(manifest))
}

function replaceByLink(model: string): void {
  const folder = dirname(model)
  renameSync(folder, `${folder}.real`)
  symlinkSync(`${folder}.real`, folder)
}

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  assert.is(status, 0, stderr)
  return stdout
}

test('a bundle is a tar of the published manifest, its signature and the files, nothing of the machine in it', async () => {
  await using box = await publishedBox()
  const names = ['manifest.json', 'manifest.sig', 'weights/core.data', 'core.onnx']

  await bundleOf(box, 'core.tar.gz')

  const listing = run('tar', '-tzvf', box.path('core.tar.gz'), '--utc', '--full-time').trimEnd().split('\n')
  assert.equal(
    listing.map(line => line.replace(/ +\d+ 1970/, ' N 1970')),
    names.map(name => `-rw-r--r-- 0/0 N 1970-01-01 00:00:00 ${name}`),
  )
  mkdirSync(box.path('unpacked'))
  run('tar', '-xzf', box.path('core.tar.gz'), '-C', box.path('unpacked'))
  for (const name of names.filter(it => it !== 'manifest.sig')) {
    assert.equal(readFileSync(box.path('unpacked', name)), readFileSync(box.path('core', name)))
  }
})

const withOpenssl = skipUnless(test, spawnSync('openssl', ['version']).status === 0, 'needs openssl')
const pssOptions = ['rsa_padding_mode:pss', 'rsa_pss_saltlen:max', 'rsa_mgf1_md:sha256']
const dgst = ['dgst', '-sha256', ...pssOptions.flatMap(option => ['-sigopt', option])]

withOpenssl('openssl verifies a bundle: RSA-PSS, SHA-256 twice, the longest salt', async () => {
  await using box = await publishedBox()
  await bundleOf(box, 'core.tar.gz')
  run('tar', '-xzf', box.path('core.tar.gz'), '-C', box.dir, 'manifest.json', 'manifest.sig')
  const signature = Buffer.from(readFileSync(box.path('manifest.sig'), 'latin1'), 'base64')
  writeFileSync(box.path('signature'), signature)

  const files = ['-verify', box.path('public.pem'), '-signature', box.path('signature')]
  const said = run('openssl', ...dgst, ...files, box.path('manifest.json'))

  assert.is(said, 'Verified OK\n')
})

withOpenssl('checkBundle() accepts what openssl and tar have made of published models', async () => {
  await using box = await publishedBox()
  const key = writeKey(box.path('private.pem'), privateKey)
  const files = ['-sign', key, '-out', box.path('signature'), box.path('core', 'manifest.json')]
  run('openssl', ...dgst, ...files)
  writeFileSync(box.path('core', 'manifest.sig'), readFileSync(box.path('signature')).toString('base64'))
  const names = ['manifest.json', 'manifest.sig', ...Object.keys(trained)]
  run('tar', '-czf', box.path('core.tar.gz'), '-C', box.path('core'), ...names)

  const { verified, differences } = await checkBundle(box.path('core.tar.gz'), createPublicKey(publicKey))

  assert.equal(differences, [])
  assert.equal(
    verified.map(({ path }) => path),
    Object.keys(trained),
  )
})

test('bundles of the same models differ in nothing but the bytes of the signature and the checksum over it', async () => {
  await using box = await publishedBox()

  const [one, other] = [await bundleOf(box, 'one'), await bundleOf(box, 'other')]

  assert.is(one.length, other.length)
  const differing = Array.from(one.keys()).filter(at => one[at] !== other[at])
  const isEnd = (at: number) => at >= one.length - 8
  const signature = differing.filter(at => !isEnd(at))
  assert.ok(signature.length > 400 && signature.at(-1)! - signature[0]! < 512, String(signature))
  assert.equal(one.subarray(0, 10).toString('hex'), '1f8b0800000000000403')
})

for (const [what, spoil, reason] of [
  [
    'a changed model',
    (file: string) => writeFileSync(file, onnxModel()),
    'core.onnx is not what was published',
  ],
  ['a truncated model', (file: string) => truncateSync(file, 10), 'core.onnx is not what was published'],
  ['a missing model', (file: string) => rmSync(file), 'core.onnx is missing'],
  [
    'no manifest',
    (file: string) => rmSync(file.replace('core.onnx', 'manifest.json')),
    'manifest.json is missing',
  ],
  [
    'a manifest of nothing',
    (file: string) => writeFileSync(file.replace('core.onnx', 'manifest.json'), '{"metadata":{},"files":{}}'),
    'manifest.json describes no model',
  ],
  [
    'a size that somebody has changed',
    (file: string) => editMetadata(file, ({ sizes }) => sizes['core.onnx']!++),
    'manifest.json names "core.onnx" in metadata.sizes, with ',
  ],
  [
    'a model_file that is not in it',
    (file: string) => editMetadata(file, metadata => (metadata.model_file = 'evil.onnx')),
    'manifest.json names "evil.onnx" in metadata.model_file, which is none of its models',
  ],
  ['a link in the place of its folder', replaceByLink, 'core is a symbolic link, not a folder'],
] as const) {
  test(`a job with ${what} is not bundled, and an earlier bundle stays as it is`, async () => {
    await using box = await publishedBox({ 'out/core.tar.gz': 'an earlier bundle' })
    spoil(box.path('core', spoil === replaceByLink ? 'core.onnx' : 'generations/1/core.onnx'))

    const { exitCode, message } = await failure(() => bundleOf(box, 'out/core.tar.gz'))

    assert.is(exitCode, 1)
    assert.match(message, 'Cannot bundle core: ')
    assert.match(message, reason)
    assert.match(message, 'node --import tsx tasks.ts core')
    assert.equal(filesBelow(box.path('out')), ['core.tar.gz'])
    assert.is(readFileSync(box.path('out', 'core.tar.gz'), 'utf8'), 'an earlier bundle')
  })
}

test('an earlier generation can be bundled too', async () => {
  await using box = await publishedBox()
  await trainAndPublish(box.path('core'), { 'core.onnx': onnxModel({ producer: 'next' }) })

  const generation = { number: 1, dir: box.path('core/generations/1') }
  await writeBundle(
    {
      job: 'core',
      jobDir: box.path('core'),
      generation,
      modelsDir: box.dir,
      quotasFile: box.path('quotas.json'),
    },
    createPrivateKey(privateKey),
    box.path('old.tar.gz'),
    new AbortController().signal,
  )

  const { verified } = await checkBundle(box.path('old.tar.gz'), createPublicKey(publicKey))
  assert.equal(
    verified.map(({ path, sha256 }) => [path, sha256]).sort(),
    Object.entries(trained)
      .map(([path, content]) => [path, sha256Of(content)])
      .sort(),
  )
})

test('a job that this user may not read is not called unpublished', async () => {
  await using box = await publishedBox()
  chmodSync(box.dir, 0o777)
  chmodSync(box.path('core', 'manifest.json'), 0)

  const { exitCode, message } = await asNobody(() => failure(() => bundleOf(box, 'core.tar.gz')))

  assert.is(exitCode, 3)
  assert.match(message, /manifest\.json cannot be read \(EACCES.*; run the same command as root$/)
})

for (const [out, exitCode, reason] of [
  ['none/core.tar.gz', 3, /none\/core\.tar\.gz: ENOENT: .*; choose another --out/],
  ['public.pem/core.tar.gz', 3, /ENOTDIR: .*; choose another --out/],
  ['core/core.onnx', 64, /--out is .*, expected a place outside /],
] as const) {
  test(`a bundle is not written to ${out}`, async () => {
    await using box = await publishedBox()
    const before = filesBelow(box.dir)

    const error = await failure(() => bundleOf(box, out))

    assert.is(error.exitCode, exitCode)
    assert.match(error.message, reason)
    assert.equal(filesBelow(box.dir), before)
    assert.equal(readFileSync(box.path('core', 'core.onnx')), trained['core.onnx'])
  })
}

test.run()
