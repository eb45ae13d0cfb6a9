/**
 * Publishing under faults, made by strace in real processes: killed at every system call that changes the disk, and
 * with every such call refused. In a sweep a set of 21 files is published, in a sample three.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { recover } from '../../lib/models/recovery.ts'
import { checkPublished } from '../../lib/models.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { isSweep, programOf } from '../support/places.ts'
import { publishFlatFiles, sha256Of, trainAndPublish, writeFiles } from '../support/publishing.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const globs = ['**/*.onnx']
const extras = Array.from({ length: isSweep ? 18 : 1 }, (_, index) => `sub/${index}.onnx`)

/** A set as a training leaves it: each file says which one it is of. External data has the same name in each. */
function setOf(producer: string): Record<string, Buffer | string> {
  const extra = extras.map(name => [name, onnxModel({ producer: `${producer} ${name}` })])
  return {
    'w.bin': `${producer} weights`,
    'core.onnx': onnxModel({ producer, external: [{ location: 'w.bin' }] }),
    ...Object.fromEntries(extra),
  }
}

const old = setOf('old')
const next = setOf('new')
const publishNext = ['publish', ...Object.keys(next).filter(name => name.endsWith('.onnx'))]

/** Calls that change the disk, which starting up does not make; the others are found by their path. */
const counted = ['fsync', 'rename', 'mkdir', 'link', 'symlink', 'unlink', 'rmdir', 'chmod', 'lchown']
const canTrace = spawnSync('strace', ['-f', 'true']).status === 0
const faultTest = skipUnless(test, canTrace, 'needs strace (Debian package strace)')

faultTest(
  'publish() killed at any system call leaves the old set or the new, and recover() the rest',
  async () => {
    const outcomes = new Map(await sweepAll('signal=KILL', prepared, publishNext, assertCrash))
    for (const call of ['openat', 'write'])
      outcomes.set(call, [await atManifest(call, 'signal=KILL', assertCrash)])

    const all = [...outcomes.values()].flat()
    // The least that the contract asks for: every file and every folder synced, the generation and `current` renamed.
    assert.ok(outcomes.get('rename')!.length >= (isSweep ? 25 : 1))
    assert.ok(outcomes.get('fsync')!.length >= (isSweep ? 25 : 2))
    assert.equal([...outcomes.get('openat')!, ...outcomes.get('write')!], ['old', 'old'])
    assert.equal([...new Set(all)].sort(), ['new', 'old'])
    if (isSweep) assert.ok(all.length >= 100, `${all.length} points`)
  },
)

faultTest('recover() killed at any system call is finished by the next one', async () => {
  const outcomes = (await sweepAll('signal=KILL', interrupted, ['recover'], assertCrash)).flatMap(
    ([, seen]) => seen,
  )

  assert.ok(outcomes.length >= (isSweep ? 20 : 2), `${outcomes.length} points`)
  assert.equal([...new Set(outcomes)], ['new'])
})

faultTest('the way from files beside each other to generations has no step without a model', async () => {
  const command = ['start', ...globs]
  const outcomes = (await sweepAll('signal=KILL', flat, command, assertUpgrade)).flatMap(([, seen]) => seen)

  assert.ok(outcomes.length >= (isSweep ? 20 : 2), `${outcomes.length} points`)
})

faultTest('a rollback that is killed at any system call leaves one set or the other', async () => {
  const command = ['rollback', '1']
  const outcomes = (await sweepAll('signal=KILL', published, command, assertCrash)).flatMap(
    ([, seen]) => seen,
  )

  assert.ok(outcomes.length >= (isSweep ? 60 : 4), `${outcomes.length} points`)
  assert.equal([...new Set(outcomes)].sort(), ['new', 'old'])
})

for (const errno of ['ENOSPC', 'EDQUOT', 'EIO']) {
  faultTest(
    `publish() refused by ${errno} at any system call leaves a whole set and nothing temporary`,
    async () => {
      const assertError = assertRefusal(errno)
      const outcomes = (await sweepAll(`error=${errno}`, prepared, publishNext, assertError)).flatMap(
        ([, it]) => it,
      )
      const early = [
        await atManifest('openat', `error=${errno}`, assertError),
        await atManifest('write', `error=${errno}`, assertError),
      ]

      assert.equal(early, ['old', 'old'])
      assert.ok(outcomes.length >= (isSweep ? 80 : 6), `${outcomes.length} points`)
      assert.ok(outcomes.includes('old'))
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

/** Sweep over every counted call: in a sweep at each of its times, else at some. */
async function sweepAll(
  fault: string,
  prepare: () => Promise<Sandbox>,
  command: string[],
  assess: Assess,
): Promise<[call: string, outcomes: Outcome[]][]> {
  const sweeps = counted.map((call, index) => {
    const some = isSweep ? { first: 1, stride: 1 } : { first: 1 + (index % 2), stride: 4 }
    return () => sweep(call, fault, prepare, command, assess, some)
  })
  const found: [string, Outcome[]][] = []
  const work = async () => {
    for (let next = sweeps.pop(); next; next = sweeps.pop()) found.push(await next())
  }
  await Promise.all([work(), work(), work()])
  return found
}

/** Run with a fault at the first such call, at the second, and so on, or at some, until one run gets through. */
async function sweep(
  call: string,
  fault: string,
  prepare: () => Promise<Sandbox>,
  command: string[],
  assess: Assess,
  { first, stride }: { first: number; stride: number },
): Promise<[call: string, outcomes: Outcome[]]> {
  const outcomes: Outcome[] = []
  for (let count = first; count <= 200; count += stride) {
    await using box = await prepare()
    const ended = await inject(
      box,
      ['-e', `trace=${call}`, '-e', `inject=${call}:${fault}:when=${count}`],
      command,
    )
    if (ended.code === 0) return [call, outcomes]
    outcomes.push(await assess(box, ended))
  }
  throw new Error(`no run got through 200 times ${call}`)
}

/** A fault at the one call that makes the file of the next generation's manifest, or that writes it. */
async function atManifest(call: string, fault: string, assess: Assess): Promise<Outcome> {
  await using box = await prepared()
  const path = box.path('generations/next/manifest.json')
  const tracing = ['-P', path, '-e', `trace=${call}`, '-e', `inject=${call}:${fault}:when=1+`]
  return await assess(box, await inject(box, tracing, publishNext))
}

async function inject(box: Sandbox, tracing: string[], [command, ...names]: string[]): Promise<Ended> {
  await using logs = await sandbox()
  const log = logs.path('log')
  const program = [process.execPath, ...programOf('test/support/publisher.ts'), command!, box.dir, ...names]
  return await new Promise(resolve => {
    const argv = ['-f', '-y', '-qq', '-o', log, ...tracing, ...program]
    // One thread for files, so that the calls come in one order and have one count.
    const options = { env: { ...process.env, UV_THREADPOOL_SIZE: '1' } }
    const child = execFile('strace', argv, options, (_error, _stdout, stderr) => {
      resolve({ signal: child.signalCode, code: child.exitCode, stderr, log: readFileSync(log, 'utf8') })
    })
  })
}

/** Made once, and copied with its times and links for each point. */
const templates: Partial<Record<'prepared' | 'interrupted' | 'published', Promise<Sandbox>>> = {}
test.after(async () => {
  for (const template of Object.values(templates)) await (await template)[Symbol.asyncDispose]()
})

async function copyOf(template: Sandbox): Promise<Sandbox> {
  const box = await sandbox()
  execFileSync('cp', ['--archive', `${template.dir}/.`, box.dir])
  return box
}

/** The old set is published, the new one is in `work/`. */
async function prepared(): Promise<Sandbox> {
  templates.prepared ??= sandbox().then(async box => {
    await trainAndPublish(box.dir, old)
    writeFiles(box.path('work'), next)
    return box
  })
  return copyOf(await templates.prepared)
}

/** Both sets are published, the new one is current. */
async function published(): Promise<Sandbox> {
  templates.published ??= prepared().then(async box => {
    assert.is((await inject(box, ['-e', 'trace=none'], publishNext)).code, 0)
    await recover(box.dir)
    return box
  })
  return copyOf(await templates.published)
}

/** A publication that was killed when it had made its generation and was about to make it current. */
async function interrupted(): Promise<Sandbox> {
  templates.interrupted ??= prepared().then(async box => {
    const path = box.path('current.next')
    const tracing = ['-P', path, '-e', 'trace=rename', '-e', 'inject=rename:signal=KILL:when=1']
    await inject(box, tracing, publishNext)
    assert.is(readlinkSync(path), 'generations/2')
    return box
  })
  return copyOf(await templates.interrupted)
}

/** A set as it was published before there were generations. */
async function flat(): Promise<Sandbox> {
  const box = await sandbox()
  publishFlatFiles(box.dir, old)
  return box
}

async function assertCrash(box: Sandbox, { signal }: Ended): Promise<Outcome> {
  assert.is(signal, 'SIGKILL')
  assertWhole(box)
  await recover(box.dir)
  return assertConsistent(box)
}

async function assertUpgrade(box: Sandbox, { signal }: Ended): Promise<Outcome> {
  assert.is(signal, 'SIGKILL')
  for (const [name, content] of Object.entries(old)) {
    assert.equal(readFileSync(box.path(name)), Buffer.from(content))
  }
  assert.is((await checkPublished(box.dir, globs)).missing, false)
  await recover(box.dir)
  assert.is((await checkPublished(box.dir, globs)).missing, false)
  return 'old'
}

function assertRefusal(errno: string): Assess {
  return async (box, { code, stderr }) => {
    assert.is(code, 1)
    assert.match(stderr, new RegExp(`^Cannot publish core\\.onnx, .* in \\S+: ${errno}: .*\n$`))
    assertWhole(box)
    const isThere = ['generations/next', 'current.next'].filter(name => existsSync(box.path(name)))
    // What could not be removed either, the next start removes.
    if (isThere.length) await recover(box.dir)
    await recover(box.dir)
    return assertConsistent(box)
  }
}

/** What readers find at this moment: of `current` all files of one set; of flat names a model with its own data. */
function assertWhole(box: Sandbox): void {
  const { files } = JSON.parse(readFileSync(box.path('current/manifest.json'), 'utf8'))
  for (const [name, sha256] of Object.entries(files)) {
    assert.is(sha256Of(readFileSync(box.path('current', name))), sha256)
  }
  const model = readFileSync(box.path('core.onnx'))
  const isOld = model.equals(old['core.onnx'] as Buffer)
  assert.is(model.includes(isOld ? 'w.bin' : 'w-2.bin'), true)
  assert.is(
    readFileSync(box.path(isOld ? 'w.bin' : 'w-2.bin'), 'utf8'),
    isOld ? 'old weights' : 'new weights',
  )
}

/** The folder holds the old set or the new one and nothing else, and its manifest says so; flat names are of it. */
async function assertConsistent(box: Sandbox): Promise<Outcome> {
  assertWhole(box)
  const isOld = readlinkSync(box.path('current')) === 'generations/1'
  const expected = Object.keys(isOld ? old : next).map(name =>
    name === 'w.bin' && !isOld ? 'w-2.bin' : name,
  )
  const names = [...expected, 'manifest.json'].sort()
  assert.equal(filesIn(join(box.dir, 'current/.')), names)
  const flats = filesIn(box.dir).filter(name => !/^(work|generations|current)(\/|$)/.test(name))
  assert.equal(flats, names)
  for (const name of names) assert.is(lstatSync(box.path(name)).ino, statSync(box.path('current', name)).ino)
  const { missing, adopt } = await checkPublished(box.dir, globs)
  assert.equal({ missing, adopt }, { missing: false, adopt: [] })
  return isOld ? 'old' : 'new'
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => !statSync(join(folder, name)).isDirectory())
    .sort()
}

test.run()
