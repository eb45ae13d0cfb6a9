import { spawnSync } from 'node:child_process'
import {
  lstatSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import * as assert from 'uvu/assert'
import { rsaPair, writeKey } from '../support/keys.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { filesBelow, sha256Of, trainAndPublish, writeFiles } from '../support/publishing.ts'
import { type Rig, trainerRig } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const pair = rsaPair()
const bundle = { script: 'scripts/bundle.ts' }
const verify = { script: 'scripts/verify.ts' }

type BundleRig = Rig & { coreDir: string; out: string; bundling: string[]; verifying: string[] }

/** A rig with keys, and the arguments that bundle core and check the bundle. */
async function bundleRig(): Promise<BundleRig> {
  const rig = await trainerRig()
  const key = writeKey(rig.path('private.pem'), pair.privateKey)
  writeFileSync(rig.path('public.pem'), pair.publicKey)
  for (const folder of ['out', 'models/core']) mkdirSync(rig.path(folder), { recursive: true })
  const out = rig.path('out', 'core.tar.gz')
  const bundling = ['core', '--key', key, '--out', out]
  const verifying = ['--bundle', out, '--key', rig.path('public.pem')]
  return { ...rig, coreDir: rig.path('models', 'core'), out, bundling, verifying }
}

inSweep('a bundle takes the place of a file, behind a link too, and of nothing else', async () => {
  await using rig = await bundleRig()
  await trainAndPublish(rig.coreDir, { 'core.onnx': onnxModel() })
  const [link, folder] = [rig.path('link'), rig.path('folder')]
  writeFileSync(rig.path('behind'), 'an earlier one')
  symlinkSync('behind', link)
  mkdirSync(folder)
  const [core, key, file] = rig.bundling

  const linked = await rig.run([core!, key!, file!, '--out', link], bundle)
  const refused = await rig.run([core!, key!, file!, '--out', folder], bundle)

  assert.equal([linked.exitCode, refused.exitCode], [0, 3])
  assert.ok(lstatSync(link).isSymbolicLink())
  assert.ok(statSync(rig.path('behind')).size > onnxModel().length)
  assert.match(refused.stderr, `Cannot write ${folder}: it is not a regular file; choose another --out`)
  assert.ok(statSync(folder).isDirectory())
})

test('a bundle is verified with the right key, and refused with another or once a model is changed', async () => {
  await using rig = await bundleRig()
  await trainAndPublish(rig.coreDir, { 'core.onnx': onnxModel() })
  writeFileSync(rig.path('other.pem'), rsaPair('other').publicKey)

  const bundled = await rig.run([...rig.bundling, '--json'], bundle)
  const { size: bytes } = statSync(rig.out)
  const good = await rig.run([...rig.verifying, '--json'], verify)
  const otherKey = await rig.run(['--bundle', rig.out, '--key', rig.path('other.pem')], verify)
  const files = ['manifest.json', 'manifest.sig', 'core.onnx']
  spawnSync('tar', ['-xzf', rig.out, '-C', rig.dir])
  writeFileSync(rig.path('core.onnx'), onnxModel({ producer: 'evil' }))
  spawnSync('tar', ['-czf', rig.out, '-C', rig.dir, ...files])
  const changed = await rig.run(rig.verifying, verify)

  assert.equal([bundled.exitCode, good.exitCode, otherKey.exitCode, changed.exitCode], [0, 0, 1, 1])
  assert.equal(JSON.parse(bundled.stdout), { bundle: rig.out, job: 'core', bytes, files: ['core.onnx'] })
  const verified = [{ path: 'core.onnx', bytes: onnxModel().length, sha256: sha256Of(onnxModel()) }]
  assert.equal(JSON.parse(good.stdout), { ok: true, bundle: rig.out, verified, adopted: [], differences: [] })
  assert.match(otherKey.stdout, 'not signed with the private half of this key')
  assert.match(changed.stdout, `${rig.out} holds core.onnx with`)
  assert.match(changed.stdout, `\nNOT verified ${rig.out}\n`)
})

inSweep(
  'a model that was put in the place of the trained one is told from it, and not bundled until it is trained',
  async () => {
    await using rig = await bundleRig()
    await rig.run(['core'])
    writeFileSync(rig.path('models/core/core.onnx'), onnxModel({ producer: 'another' }))
    await rig.run(['core'])

    const status = await rig.run([], { script: 'scripts/status.ts' })
    const verified = await rig.run(['core'], verify)
    const refused = await rig.run(rig.bundling, bundle)
    await rig.run(['core', '--retrain'])
    const bundled = await rig.run(rig.bundling, bundle)

    assert.match(status.stdout, /^core: core\.onnx as adopted, not trained here$/m)
    assert.is(verified.exitCode, 0)
    assert.match(verified.stdout, /^core: core\.onnx was adopted, not trained here$/m)
    assert.match(verified.stdout, /^as published: 1 file in .*models; adopted, not trained here: 1 file$/m)
    assert.is(refused.exitCode, 1)
    assert.match(
      refused.stderr,
      'manifest.json names "core.onnx" in metadata.adopted: it was not trained, and stays until it is removed or a training replaces it; train it: ' +
        `node --import tsx tasks.ts core --retrain --models-dir ${rig.modelsDir} --quotas ${rig.path('quotas.json')}\n`,
    )
    assert.is(bundled.exitCode, 0)
  },
)

for (const args of [
  ['--bundle', 'b'],
  ['--key', 'k'],
  ['core', '--bundle', 'b', '--key', 'k'],
]) {
  test(`verify ${args.join(' ')} is wrong usage`, async () => {
    await using rig = await bundleRig()

    const { exitCode, stdout, stderr } = await rig.run(args, verify)

    assert.is(exitCode, 64)
    assert.is(stdout, '')
    assert.match(stderr, '--bundle FILE with --key FILE')
  })
}

inSweep('a bundle does not take the place of the key that signs it', async () => {
  await using rig = await bundleRig()
  await trainAndPublish(rig.coreDir, { 'core.onnx': onnxModel() })
  const key = rig.path('private.pem')

  const { exitCode, stderr } = await rig.run(['core', '--key', key, '--out', key], bundle)

  assert.is(exitCode, 64)
  assert.match(stderr, `--out is ${key}, expected another file than the key`)
  assert.is(readFileSync(key, 'utf8'), pair.privateKey)
})

inSweep('a bundle that the disk does not take is gone, and the error says so', async () => {
  await using rig = await bundleRig()
  await trainAndPublish(rig.coreDir, { 'core.onnx': onnxModel() })

  const { exitCode, stderr } = await rig.run(rig.bundling, { ...bundle, prefix: ['prlimit', '--fsize=2048'] })

  assert.is(exitCode, 3)
  assert.match(stderr, `Cannot write ${rig.out}: EFBIG`)
  assert.equal(filesBelow(rig.path('out')), [])
})

test('an interrupted bundle is gone', async () => {
  await using rig = await bundleRig()
  publishZeros(rig, 2 ** 32, 'f'.repeat(64))

  const bundling = rig.start(rig.bundling, bundle)
  await until('the bundle is being written', () => filesBelow(rig.path('out')).length)
  bundling.child.kill('SIGTERM')
  const { exitCode } = await bundling.ended

  assert.is(exitCode, 143)
  assert.equal(filesBelow(rig.path('out')), [])
})

inSweep('a large model is bundled and verified in little memory', async () => {
  await using rig = await bundleRig()
  const content = Buffer.alloc(2 ** 27)
  publishZeros(rig, content.length, sha256Of(content))

  const bundlingBytes = await peakMemoryOf(rig.start(rig.bundling, bundle))
  const verifyingBytes = await peakMemoryOf(rig.start(rig.verifying, verify))

  assert.ok(statSync(rig.out).size > content.length)
  assert.ok(bundlingBytes < 190 * 2 ** 20, `${bundlingBytes} bytes at most`)
  assert.ok(verifyingBytes < 190 * 2 ** 20, `${verifyingBytes} bytes at most`)
})

for (const [what, args, reason] of [
  ['no job', ['--key', 'private.pem'], 'Name one job'],
  ['two jobs', ['core', 'dpi', '--key', 'private.pem'], 'Name one job'],
  ['no key', ['core'], '--key FILE'],
  ['a key that is not there', ['core', '--key', 'nowhere.pem'], 'ENOENT'],
] as const) {
  test(`bundling with ${what} is wrong usage`, async () => {
    await using rig = await bundleRig()

    const { exitCode, stderr } = await rig.run([...args, '--out', rig.out], bundle)

    assert.is(exitCode, 64)
    assert.match(stderr, reason)
    assert.is(stderr.trimEnd().split('\n').length, 1)
    assert.equal(filesBelow(rig.path('out')), [])
  })
}

/** A published model of zeros: a sparse file, and a manifest that says it has that SHA-256. */
function publishZeros({ coreDir }: BundleRig, bytes: number, sha256: string): void {
  writeFiles(coreDir, {
    'core.onnx': '',
    'manifest.json': JSON.stringify({ metadata: {}, files: { 'core.onnx': sha256 } }),
  })
  truncateSync(`${coreDir}/core.onnx`, bytes)
}

/** The most memory that a process had in RAM, seen until its end; it must end with 0. */
async function peakMemoryOf({ pid, ended }: ReturnType<Rig['start']>): Promise<number> {
  let peakBytes = 0
  const look = () => {
    peakBytes = Math.max(peakBytes, peakBytesOf(pid))
    return Promise.race([ended, Promise.resolve(undefined)])
  }
  const { exitCode } = await until('it ends', look, 60_000)
  assert.is(exitCode, 0)
  assert.ok(peakBytes > 0)
  return peakBytes
}

function peakBytesOf(pid: number): number {
  try {
    return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0) * 1024
  } catch {
    return 0 // it has ended
  }
}

test.run()
