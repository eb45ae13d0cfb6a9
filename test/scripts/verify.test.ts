import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { type Verification, verifyPublished } from '../../lib/models/verify.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { readManifest, sha256Of, snapshot, trainAndPublish } from '../support/publishing.ts'
import { trainerRig, untilEvent } from '../support/rig.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const script = 'scripts/verify.ts'
const globs = ['**/*.onnx']
const weights = 'w'.repeat(100)
const model = onnxModel({ external: [{ location: 'weights.bin', length: 100 }] })

/** A job's folder with a published model that has external data. */
async function publishedJob(): Promise<Sandbox & { verify: () => Promise<Verification> }> {
  const box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': model, 'weights.bin': weights })
  return { ...box, verify: () => verifyPublished(box.dir, globs) }
}

/** The differences, a sentence each. */
function sentences({ differences }: Verification): string[] {
  return differences.map(({ path, reason }) => `${path} ${reason}`)
}

test('verifyPublished() finds a publication as it was, external data too, whatever its times', async () => {
  await using job = await publishedJob()
  utimesSync(job.path('core.onnx'), 1, 1)

  const verification = await job.verify()

  assert.equal(verification, {
    verified: [
      { path: 'weights.bin', bytes: 100, sha256: sha256Of(weights) },
      { path: 'core.onnx', bytes: model.length, sha256: sha256Of(model) },
    ],
    adopted: [],
    differences: [],
  })
})

test('verifyPublished() reads every file whole: one changed byte is found though size and times agree', async () => {
  await using job = await publishedJob()
  const changed = `${weights.slice(1)}x`
  writeFileSync(job.path('weights.bin'), changed)
  const { mtimes_ns } = readManifest(job.dir).metadata as { mtimes_ns: Record<string, string> }
  const seconds = Number(mtimes_ns['weights.bin']) / 1e9
  utimesSync(job.path('weights.bin'), seconds, seconds)

  const verification = await job.verify()

  assert.equal(sentences(verification), [
    `weights.bin differs: its SHA-256 is ${sha256Of(changed)}, but ${sha256Of(weights)} was published`,
  ])
  assert.equal(
    verification.verified.map(({ path }) => path),
    ['core.onnx'],
  )
})

test('verifyPublished() names what is missing, a link in its place, and a model that nobody published', async () => {
  await using job = await publishedJob()
  rmSync(job.path('core.onnx'))
  symlinkSync('/etc/hostname', job.path('core.onnx'))
  rmSync(job.path('weights.bin'))
  mkdirSync(job.path('sub'))
  writeFileSync(job.path('sub', 'foreign.onnx'), onnxModel())

  const verification = await job.verify()

  assert.equal(sentences(verification).sort(), [
    'core.onnx is a symbolic link, not a regular file',
    'sub/foreign.onnx is not among the files in manifest.json',
    'weights.bin is missing; the next run puts it back',
  ])
  assert.equal(
    verification.verified.map(({ path }) => path),
    ['weights.bin', 'core.onnx'],
  )
})

test('verifyPublished() names a model whose structure is broken though its SHA-256 is right', async () => {
  await using job = await publishedJob()
  const broken = model.subarray(0, model.length - 1)
  writeFileSync(job.path('core.onnx'), broken)
  const manifest = readManifest(job.dir)
  manifest.files['core.onnx'] = sha256Of(broken)
  writeFileSync(job.path('current/manifest.json'), JSON.stringify(manifest))

  const verification = await job.verify()

  assert.match(sentences(verification).join(), /^core\.onnx is cut off or damaged at byte \d+$/)
})

test('verifyPublished() names external data that the manifest leaves out', async () => {
  await using job = await publishedJob()
  const manifest = readManifest(job.dir)
  delete manifest.files['weights.bin']
  writeFileSync(job.path('current/manifest.json'), JSON.stringify(manifest))

  const verification = await job.verify()

  assert.equal(sentences(verification), ['weights.bin is not among the files in manifest.json'])
})

test('verifyPublished() trusts no manifest that is missing, no manifest, or empty', async () => {
  await using job = await publishedJob()
  const reasons: string[][] = []
  for (const text of [undefined, 'garbage', '{"metadata": {}, "files": {}}']) {
    rmSync(job.path('current/manifest.json'))
    if (text !== undefined) writeFileSync(job.path('current/manifest.json'), text)
    reasons.push(sentences(await job.verify()))
    writeFileSync(job.path('current/manifest.json'), '')
  }

  const unlisted = 'core.onnx is not among the files in manifest.json'
  assert.equal(reasons, [
    ['manifest.json is missing', unlisted],
    ['manifest.json is not a manifest of any files', unlisted],
    [
      'manifest.json is not a manifest of any files',
      unlisted,
      'manifest.json is not the file of the current generation',
    ],
  ])
})

test('verifyPublished() names metadata that the files do not bear out', async () => {
  await using job = await publishedJob()
  const manifest = readManifest(job.dir)
  Object.assign(manifest.metadata, {
    sizes: { 'core.onnx': 5, 'weights.bin': 100 },
    model_file: '../evil.onnx',
    models: ['core.onnx', 'more.onnx'],
    superseded: ['weights.bin'],
  })
  writeFileSync(job.path('current/manifest.json'), JSON.stringify(manifest))

  const verification = await job.verify()

  assert.equal(sentences(verification), [
    'manifest.json names "more.onnx" in metadata.models, which is not among its files',
    'manifest.json names "../evil.onnx" in metadata.model_file, which is none of its models',
    'manifest.json names "weights.bin" in metadata.superseded, which is among its files',
    `manifest.json names "core.onnx" in metadata.sizes, with 5 bytes, which has ${model.length}`,
  ])
})

test('verifyPublished() does not follow a link in the place of the job', async () => {
  await using job = await publishedJob()
  symlinkSync('.', job.path('link'))

  const verification = await verifyPublished(job.path('link'), globs)

  assert.equal(verification, {
    verified: [],
    adopted: [],
    differences: [{ path: job.path('link'), reason: 'is a symbolic link, not a folder' }],
  })
})

test('verifyPublished() hashes models of any other kind without looking into them', async () => {
  await using box = await sandbox()
  const kinds = ['*.pkl']
  await trainAndPublish(box.dir, { 'core.pkl': 'pickle' }, { globs: kinds, models: ['core.pkl'] })

  const before = await verifyPublished(box.dir, kinds)
  appendFileSync(box.path('core.pkl'), '!')
  const after = await verifyPublished(box.dir, kinds)

  assert.equal(before.verified, [{ path: 'core.pkl', bytes: 6, sha256: sha256Of('pickle') }])
  assert.match(sentences(after).join(), /^core\.pkl differs: /)
})

/** The moment at which a generation is complete, but not yet current. */
async function midPublication(): Promise<Awaited<ReturnType<typeof publishedJob>> & { commit: () => void }> {
  const job = await publishedJob()
  await trainAndPublish(job.dir, { 'core.onnx': onnxModel({ producer: 'next' }) })
  renameSync(job.path('current'), job.path('current.next'))
  symlinkSync('generations/1', job.path('current'))
  return { ...job, commit: () => renameSync(job.path('current.next'), job.path('current')) }
}

test('verifyPublished() looks again when a publication went on meanwhile', async () => {
  await using job = await midPublication()

  const verifying = job.verify() // has read the old manifest
  job.commit()
  const verification = await verifying

  assert.equal(sentences(verification), [])
  assert.equal(
    verification.verified.map(({ path }) => path),
    ['core.onnx'],
  )
})

test('verifyPublished() says that a publication was cut off', async () => {
  await using job = await midPublication()

  const verification = await job.verify()

  assert.match(
    sentences(verification).join('\n'),
    /^core\.onnx is not the file of the current generation\n(.*\n)*current\.next is left over from a publication that was cut off; the next run finishes it$/,
  )
})

inSweep(
  'verify prints what it verified and ends with 0, beside a run that holds the lock, and writes nothing',
  async () => {
    await using rig = await trainerRig({ dpi: { trainer: `await sleep(60_000)` } })
    const run = rig.start(['core', 'dpi'])
    await untilEvent(rig, 'train.start', 'dpi')
    const coreDir = join(rig.modelsDir, 'core')
    const before = snapshot(coreDir)

    const { exitCode, stdout } = await rig.run(['core'], { script })
    run.child.kill('SIGTERM')
    await run.ended

    assert.is(exitCode, 0)
    const content = readFileSync(join(coreDir, 'core.onnx'))
    assert.is(
      stdout,
      `core: core.onnx verified (${content.length} bytes, sha256 ${sha256Of(content)})\n` +
        `as published: 1 file in ${rig.modelsDir}\n`,
    )
    assert.equal(snapshot(coreDir), before)
  },
)

test('verify ends with 1 and names every difference of every job, escaped; --json has the same', async () => {
  await using rig = await trainerRig()
  await rig.run(['core', 'dpi'])
  appendFileSync(join(rig.modelsDir, 'core', 'core.onnx'), '!')
  writeFileSync(join(rig.modelsDir, 'dpi', '\x1b[31m.onnx'), onnxModel())

  const text = await rig.run([], { script })
  const json = await rig.run(['--json'], { script })

  assert.equal([text.exitCode, json.exitCode], [1, 1])
  assert.match(text.stdout, /^core: core\.onnx differs: /m)
  assert.match(text.stdout, /^dpi: dpi\.onnx verified /m)
  assert.match(text.stdout, /^dpi: \\x1b\[31m\.onnx is not among the files in manifest\.json$/m)
  assert.match(text.stdout, /^agent: manifest\.json is missing$/m)
  assert.match(text.stdout, /^NOT as published: 3 differences in .*models\n$/m)
  assert.ok(!text.stdout.includes('\x1b'))
  const { ok, modelsDir, jobs } = JSON.parse(json.stdout)
  assert.equal([ok, modelsDir, Object.keys(jobs)], [false, rig.modelsDir, ['core', 'dpi', 'agent']])
  assert.equal(jobs.agent, {
    verified: [],
    adopted: [],
    differences: [{ path: 'manifest.json', reason: 'is missing' }],
  })
})

inSweep('verify says how many files are adopted, and does not count them as differences', async () => {
  await using rig = await trainerRig()
  mkdirSync(join(rig.modelsDir, 'core'), { recursive: true })
  writeFileSync(join(rig.modelsDir, 'core', 'core.onnx'), onnxModel())
  await rig.run(['core'])

  const { exitCode, stdout } = await rig.run(['core', 'dpi'], { script })

  assert.is(exitCode, 1)
  assert.match(stdout, /^NOT as published: 1 difference in .*models; adopted, not trained here: 1 file$/m)
})

test('verify says that there is no models folder, and makes none', async () => {
  await using rig = await trainerRig()

  const { exitCode, stdout, stderr } = await rig.run([], { script })

  assert.equal([exitCode, stdout], [3, ''])
  assert.ok(stderr.includes(`There is no models folder ${rig.modelsDir}; name another by --models-dir\n`))
  assert.ok(!existsSync(rig.modelsDir))
})

test.run()
