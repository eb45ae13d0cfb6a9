/**
 * Publishing under faults, made by strace in real processes: killed at every system call that changes the disk, and
 * with every such call refused.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { recover } from '../../lib/models/recovery.ts'
import { checkPublished } from '../../lib/models.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { isSweep, programOf } from '../support/places.ts'
import { sha256Of, trainAndPublish, writeFiles } from '../support/publishing.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const old = {
  'w-1.bin': 'old',
  'core.onnx': onnxModel({ producer: 'old', external: [{ location: 'w-1.bin' }] }),
}
const next = {
  'w-2.bin': 'new',
  'core.onnx': onnxModel({ producer: 'new', external: [{ location: 'w-2.bin' }] }),
  'sub/extra.onnx': onnxModel({ producer: 'extra' }),
}
const publishNext = ['publish', 'core.onnx', 'sub/extra.onnx']

/** Calls that publishing makes on one thread and starting up does not; the others are found by their path. */
const counted = ['fsync', 'rename', 'mkdir']
/** Where something is killed, every other call stands for all of them outside of the sweep. */
const stride = isSweep ? 1 : 2
const canTrace = spawnSync('strace', ['-f', 'true']).status === 0
const faultTest = skipUnless(test, canTrace, 'needs strace (Debian package strace)')

faultTest(
  'publish() killed at any system call leaves the old models or the new, and recover() the rest',
  async () => {
    const outcomes = new Map<string, string[]>()

    const sweeps = counted.map(call =>
      sweep(call, 'signal=KILL', prepared, publishNext, assertCrash, { first: 1, stride }),
    )
    for (const [call, seen] of await Promise.all(sweeps)) outcomes.set(call, seen)
    for (const call of ['openat', 'write'])
      outcomes.set(call, [await atNextManifest(call, 'signal=KILL', assertCrash)])

    // The least that the contract asks for: three files and the manifest, fsync before rename and of the folder after.
    assert.ok(outcomes.get('rename')!.length * stride >= 4)
    assert.ok(outcomes.get('fsync')!.length * stride >= 8)
    assert.equal(outcomes.get('mkdir'), ['new'])
    assert.equal([...outcomes.get('openat')!, ...outcomes.get('write')!], ['old', 'old'])
    assert.equal([...new Set([...outcomes.values()].flat())].sort(), ['new', 'old'])
  },
)

faultTest('recover() killed at any system call is finished by the next one', async () => {
  const sweeps = ['fsync', 'rename', 'mkdir', 'unlink'].map(call =>
    sweep(call, 'signal=KILL', interrupted, ['recover'], assertCrash, { first: 1, stride }),
  )
  const outcomes = (await Promise.all(sweeps)).flatMap(([, seen]) => seen)

  assert.ok(outcomes.length * stride >= 10)
  assert.equal([...new Set(outcomes)], ['new'])
})

for (const [index, errno] of ['ENOSPC', 'EDQUOT', 'EIO'].entries()) {
  faultTest(
    `publish() refused by ${errno} at any system call leaves whole models and nothing temporary`,
    async () => {
      const assertError = assertRefusal(errno)
      const fault = `error=${errno}`
      const some = isSweep ? undefined : { first: 1 + index, stride: 3 } // all of them by one or the other

      const sweeps = counted.map(call => sweep(call, fault, prepared, publishNext, assertError, some))
      const outcomes = (await Promise.all(sweeps)).flatMap(([, seen]) => seen)
      const early = [
        await atNextManifest('openat', fault, assertError),
        await atNextManifest('write', fault, assertError),
      ]

      assert.equal(early, ['old', 'old'])
      assert.equal([...new Set(outcomes)].sort(), ['new', 'old'])
    },
  )
}

faultTest('publish() throws a model away whose fsync failed, and does not try again', async () => {
  await using box = await prepared()

  const { log } = await inject(box, ['-e', 'trace=fsync', '-e', 'inject=fsync:error=EIO:when=2'], publishNext)

  const file = box.path('work/core.onnx')
  assert.is(log.split('\n').filter(line => line.includes(`<${file}>`)).length, 1)
  assert.not(existsSync(file))
})

type Outcome = 'old' | 'new'
type Ended = { signal: string | null; code: number | null; stderr: string; log: string }
type Assess = (box: Sandbox, ended: Ended) => Promise<Outcome>

/** Run with a fault at the first such call, at the second, and so on, or at some, until one run gets through. */
async function sweep(
  call: string,
  fault: string,
  prepare: () => Promise<Sandbox>,
  command: string[],
  assess: Assess,
  { first, stride } = { first: 1, stride: 1 },
): Promise<[call: string, outcomes: Outcome[]]> {
  const outcomes: Outcome[] = []
  for (let count = first; count <= 40; count += stride) {
    await using box = await prepare()
    const ended = await inject(
      box,
      ['-e', `trace=${call}`, '-e', `inject=${call}:${fault}:when=${count}`],
      command,
    )
    if (ended.code === 0) return [call, outcomes]
    outcomes.push(await assess(box, ended))
  }
  throw new Error(`no run got through 40 times ${call}`)
}

/** A fault at the one call that makes the next manifest's file, or that writes it. */
async function atNextManifest(call: string, fault: string, assess: Assess): Promise<Outcome> {
  await using box = await prepared()
  const path = box.path('manifest.json.next')
  const tracing = ['-P', path, '-e', `trace=${call}`, '-e', `inject=${call}:${fault}:when=1+`]
  return await assess(box, await inject(box, tracing, publishNext))
}

async function inject(box: Sandbox, tracing: string[], [command, ...names]: string[]): Promise<Ended> {
  await using logs = await sandbox()
  const log = logs.path('log')
  const program = [process.execPath, ...programOf('test/support/publisher.ts'), command!, box.dir, ...names]
  return await new Promise(resolve => {
    // Only these calls stop the program then; a signal would come after the call instead of in its place.
    const fast = tracing.some(it => it.includes(':error=')) ? ['--seccomp-bpf'] : []
    const argv = ['-f', ...fast, '-y', '-qq', '-o', log, ...tracing, ...program]
    // One thread for files, so that the calls come in one order and have one count.
    const options = { env: { ...process.env, UV_THREADPOOL_SIZE: '1' } }
    const child = execFile('strace', argv, options, (_error, _stdout, stderr) => {
      resolve({ signal: child.signalCode, code: child.exitCode, stderr, log: readFileSync(log, 'utf8') })
    })
  })
}

/** Made once, and copied with its times for each point. */
const templates: { prepared?: Promise<Sandbox>; interrupted?: Promise<Sandbox> } = {}
test.after(async () => {
  for (const template of Object.values(templates)) await (await template)[Symbol.asyncDispose]()
})

/** Old models are published, new ones are in `work/`. */
async function prepared(): Promise<Sandbox> {
  templates.prepared ??= sandbox().then(async box => {
    await trainAndPublish(box.dir, old)
    writeFiles(box.path('work'), next)
    return box
  })
  return copyOf(await templates.prepared)
}

/** A publication that was killed once its manifest was on disk. */
async function interrupted(): Promise<Sandbox> {
  templates.interrupted ??= prepared().then(async box => {
    await inject(box, ['-e', 'trace=rename', '-e', 'inject=rename:signal=KILL:when=1'], publishNext)
    assert.ok(existsSync(box.path('manifest.json.next')))
    return box
  })
  return copyOf(await templates.interrupted)
}

async function copyOf(template: Sandbox): Promise<Sandbox> {
  const box = await sandbox()
  execFileSync('cp', ['-a', `${template.dir}/.`, box.dir])
  return box
}

async function assertCrash(box: Sandbox, { signal }: Ended): Promise<Outcome> {
  assert.is(signal, 'SIGKILL')
  assertWhole(box)
  await recover(box.dir)
  return assertConsistent(box, false)
}

function assertRefusal(errno: string): Assess {
  return async (box, { code, stderr }) => {
    assert.is(code, 1)
    assert.match(stderr, new RegExp(`^Cannot publish core\\.onnx, sub/extra\\.onnx in \\S+: ${errno}: .*\n$`))
    assertWhole(box)
    return assertConsistent(box, true)
  }
}

/** What a reader finds at this moment: the old model with its data, or the new one with its. */
function assertWhole(box: Sandbox): void {
  const isOld = readFileSync(box.path('core.onnx')).equals(old['core.onnx'])
  const [model, name] = isOld ? ([old, 'w-1.bin'] as const) : ([next, 'w-2.bin'] as const)
  assert.ok(readFileSync(box.path('core.onnx')).equals(model['core.onnx']))
  assert.is(readFileSync(box.path(name), 'utf8'), isOld ? 'old' : 'new')
}

/** The folder holds the old set or the new one and nothing else, and its manifest says so. */
async function assertConsistent(box: Sandbox, keepsSuperseded: boolean): Promise<Outcome> {
  const isOld = readFileSync(box.path('core.onnx')).equals(old['core.onnx'])
  const expected: Record<string, Buffer | string> = isOld ? old : next
  const superseded = !isOld && keepsSuperseded ? { 'w-1.bin': 'old' } : {}
  const found = readdirSync(box.dir, { recursive: true, encoding: 'utf8' }).filter(
    name => !name.startsWith('work/') && statSync(box.path(name)).isFile(),
  )
  assert.equal(found.sort(), [...Object.keys({ ...expected, ...superseded }), 'manifest.json'].sort())

  const { files } = JSON.parse(readFileSync(box.path('manifest.json'), 'utf8'))
  const hashes = Object.entries(expected).map(([name, content]) => [name, sha256Of(content)])
  assert.equal(files, Object.fromEntries(hashes))
  const { missing, adopt } = await checkPublished(box.dir, ['**/*.onnx'])
  assert.equal({ missing, adopt }, { missing: false, adopt: [] })
  return isOld ? 'old' : 'new'
}

test.run()
