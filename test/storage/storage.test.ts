import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname } from 'node:path'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { publishedFiles } from '../../lib/models.ts'
import { freeSpace } from '../../lib/storage/capacity.ts'
import { measure } from '../../lib/storage/measure.ts'
import { type Pruned, pruneOldest } from '../../lib/storage/prune.ts'
import { checkUsage, type EnforceOptions, enforceLimit } from '../../lib/storage.ts'
import { descriptorsBelow } from '../support/descriptors.ts'
import { failure } from '../support/failure.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const MIB = 2 ** 20
const GIB = 2 ** 30
const isRoot = process.getuid?.() === 0

test('enforceLimit() deletes the oldest checkpoints first, and no more than it must', async () => {
  await using box = await agedBox({ 'd.checkpoint': 3, 'c.tmp': 1, 'b.checkpoint': 2, 'a.checkpoint': 4 })

  const { usedBytes, freedBytes } = await enforceLimit(box.dir, 6.5)

  assert.equal(readdirSync(box.path('work')).sort(), ['a.checkpoint', 'b.checkpoint'])
  assert.is(freedBytes, 4 * MIB)
  assert.is(usedBytes, await checkUsage(box.dir))
})

test('enforceLimit() deletes nothing at the limit, and something one byte above it', async () => {
  await using box = await agedBox({ 'a.checkpoint': 1 })
  const used = await checkUsage(box.dir)

  assert.equal(await enforceLimit(box.dir, used / MIB), { usedBytes: used, freedBytes: 0 })
  assert.equal(await enforceLimit(box.dir, (used - 1) / MIB), { usedBytes: used - MIB, freedBytes: MIB })
})

test('enforceLimit() deletes a sparse checkpoint of 4 GiB', async () => {
  await using box = await sandbox({ 'core.onnx': onnxModel(), 'work/epoch-1.checkpoint': 1 })
  truncateSync(box.path('work/epoch-1.checkpoint'), 4 * GIB)

  const { freedBytes } = await enforceLimit(box.dir, 3072)

  assert.is(freedBytes, 4 * GIB)
  assert.equal(readdirSync(box.path('work')), [])
  assert.ok(existsSync(box.path('core.onnx')))
})

test('enforceLimit() throws "Model too large for quota" for a model of 4 GiB, and leaves all that is published', async () => {
  await using box = await sandbox({
    'small.onnx': onnxModel(),
    'model.onnx': onnxModel(),
    'manifest.json': '{"metadata": {}, "files": {}}',
    'work/epoch-1.checkpoint': 1000,
  })
  truncateSync(box.path('model.onnx'), 4 * GIB)

  const error = await failure(() => enforceLimit(box.dir, 3072))

  assert.is(error.code, 'quota-exceeded')
  assert.is(error.exitCode, 2)
  assert.match(error.message, /Model too large for quota/)
  for (const part of [box.dir, '4096 MiB', '3072 MiB']) assert.ok(error.message.includes(part), error.message)
  assert.equal(error.usage, { usedBytes: await checkUsage(box.dir), limitBytes: 3 * GIB })
  assert.equal(readdirSync(box.dir).sort(), ['manifest.json', 'model.onnx', 'small.onnx', 'work'])
  assert.equal(readdirSync(box.path('work')), [])
})

test('enforceLimit() holds the agent to 200 MB', async () => {
  await using box = await agedBox({ 'epoch-1.checkpoint': 150, 'epoch-2.checkpoint': 150 })

  const { usedBytes } = await enforceLimit(box.dir, 200)

  assert.ok(usedBytes <= 200 * MIB, `${usedBytes} bytes`)
  assert.equal(readdirSync(box.path('work')), ['epoch-2.checkpoint'])
})

test('enforceLimit() never deletes what it is told to keep: external data of a published model, or what the manifest names', async () => {
  await using box = await sandbox({
    'core.onnx': onnxModel({ external: [{ location: 'weights.tmp', offset: 0, length: 8 }] }),
    'weights.tmp': 3 * MIB,
    'table.checkpoint': MIB,
    'manifest.json': JSON.stringify({ metadata: {}, files: { 'table.checkpoint': 'a'.repeat(64) } }),
    'work/weights.tmp': MIB,
  })

  const keep = await publishedFiles(box.dir, ['*.onnx'])

  const error = await failure(() => enforceLimit(box.dir, 1, { prune: ['**'], keep }))

  assert.is(error.code, 'quota-exceeded')
  assert.equal(readdirSync(box.dir).sort(), [
    'core.onnx',
    'manifest.json',
    'table.checkpoint',
    'weights.tmp',
    'work',
  ])
  assert.equal(readdirSync(box.path('work')), [])
})

test('enforceLimit() tells of each deletion, and of the usage after it', async () => {
  await using box = await agedBox({ 'a.checkpoint': 3, 'checkpoint-7/deep/b': 2 })
  const before = await checkUsage(box.dir)
  const told: Pruned[] = []

  await failure(() =>
    enforceLimit(box.dir, 0.001, { prune: ['checkpoint-*/'], onPrune: pruned => told.push(pruned) }),
  )

  assert.equal(
    told.map(({ path, mtime, rule }) => ({ name: basename(path), mtime, rule })),
    [
      { name: 'a.checkpoint', mtime: '1970-01-01T00:16:40.000Z', rule: '*.checkpoint' },
      { name: 'checkpoint-7', mtime: '1970-01-01T00:16:41.000Z', rule: 'checkpoint-*/' },
    ],
  )
  assert.is(told[0]!.usedBytes, before - told[0]!.bytes)
  assert.is(told[1]!.usedBytes, told[0]!.usedBytes - told[1]!.bytes)
  assert.is(told[1]!.usedBytes, await checkUsage(box.dir))
})

test('enforceLimit() tells names so that they can harm no terminal', async () => {
  await using box = await sandbox()
  writeFileSync(Buffer.from(`${box.dir}/\x1b[2J\n\xff.tmp`, 'latin1'), Buffer.alloc(MIB))
  const told: Pruned[] = []

  await enforceLimit(box.dir, 0.5, { onPrune: pruned => told.push(pruned) })

  assert.equal(
    told.map(({ path }) => path),
    [`${box.dir}/\\x1b[2J\\x0a\\xff.tmp`],
  )
})

test('enforceLimit() counts a hard link as freed when its last name goes', async () => {
  await using box = await agedBox({ 'a.checkpoint': 1, 'c.checkpoint': 3 })
  linkSync(box.path('work/a.checkpoint'), box.path('work/b.checkpoint'))
  const used = await checkUsage(box.dir)
  const told: Pruned[] = []

  const { usedBytes } = await enforceLimit(box.dir, 3.5, { onPrune: pruned => told.push(pruned) })

  assert.equal(
    told.map(({ path, bytes, usedBytes }) => [basename(path), bytes, usedBytes]),
    [
      ['a.checkpoint', 0, used],
      ['b.checkpoint', MIB, used - MIB],
    ],
  )
  assert.is(usedBytes, used - MIB)
  assert.equal(readdirSync(box.path('work')), ['c.checkpoint'])
})

inSweep('enforceLimit() goes on behind more hard links than are listed at a time', async () => {
  await using box = await agedBox({ 'a.checkpoint': 1, 'z.checkpoint': 2 })
  mkdirSync(box.path('work/links'))
  for (let n = 0; n < 33_000; n++)
    linkSync(box.path('work/a.checkpoint'), box.path('work/links', `${n}.checkpoint`))
  const { usedBytes } = await measure(box.dir)

  await enforceLimit(box.dir, (usedBytes - 1.5 * MIB) / MIB)

  assert.ok((await checkUsage(box.dir)) <= usedBytes - 1.5 * MIB)
})

test('enforceLimit() in a dry run tells the same and deletes nothing', async () => {
  await using box = await agedBox({
    'a.checkpoint': 1,
    'b.checkpoint': 2,
    'c.checkpoint': 3,
    'checkpoint-1/a': 4,
  })
  const run = async (dryRun: boolean) => {
    const told: Pruned[] = []
    const options: EnforceOptions = { dryRun, prune: ['checkpoint-*/'], onPrune: pruned => told.push(pruned) }
    return { ...(await enforceLimit(box.dir, 7.5, options)), told }
  }
  const names = readdirSync(box.dir, { recursive: true })

  const dry = await run(true)
  const namesAfter = readdirSync(box.dir, { recursive: true })
  const wet = await run(false)

  assert.is(dry.told.length, 2)
  assert.equal(dry, wet)
  assert.equal(namesAfter, names)
})

test('enforceLimit() in a dry run throws where the run itself would', async () => {
  await using box = await agedBox({ 'a.checkpoint': 1, 'model.bin': 2 })

  const error = await failure(() => enforceLimit(box.dir, 0.5, { dryRun: true }))

  assert.match(error.message, /Model too large for quota/)
  assert.equal(readdirSync(box.path('work')).sort(), ['a.checkpoint', 'model.bin'])
})

test('enforceLimit() goes on after what it cannot delete, and says why it could not', async () => {
  await using box = await agedBox({ 'locked/a.checkpoint': 1, 'b.checkpoint': 2, 'model.bin': 3 })
  chmodSync(box.dir, 0o755)
  if (isRoot) chownSync(box.path('work'), 65534, 65534)
  else chmodSync(box.path('work/locked'), 0o555)

  const error = await failure(() => asNobody(() => enforceLimit(box.dir, 1)))

  if (!isRoot) chmodSync(box.path('work/locked'), 0o755)
  assert.match(error.message, /Model too large for quota/)
  assert.match(error.message, /a\.checkpoint: EACCES/)
  assert.equal(readdirSync(box.path('work')).sort(), ['locked', 'model.bin'])
})

inSweep(
  'enforceLimit() copes with another program that makes and deletes checkpoints meanwhile',
  async () => {
    await using box = await agedBox({ 'model.bin': 1 })
    const churn = spawn(process.execPath, ['-e', CHURN, box.path('work')], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    await once(churn.stdout, 'data')
    let rounds = 0
    let freed = 0
    let exceeded = 0

    for (const end = performance.now() + 1500; performance.now() < end; rounds++) {
      try {
        freed += (await enforceLimit(box.dir, 1.5)).freedBytes
      } catch (error) {
        if (!(error instanceof TrainerError && error.code === 'quota-exceeded')) throw error
        exceeded++
      }
    }

    churn.kill('SIGKILL')
    await once(churn, 'exit')
    assert.ok(
      rounds > 10 && freed > 0 && exceeded < rounds,
      `${rounds} rounds, ${freed} freed, ${exceeded} exceeded`,
    )
    assert.ok(existsSync(box.path('work/model.bin')))
  },
)

test('enforceLimit() refuses a limit that is none, and a folder that is not there', async () => {
  await using box = await sandbox({ 'a.checkpoint': 10 })

  for (const limitMb of [0, -1, Number.NaN, Infinity]) {
    const error = await enforceLimit(box.dir, limitMb).catch(error => error)
    assert.instance(error, RangeError)
  }
  assert.is((await failure(() => enforceLimit(box.path('missing'), 1))).code, 'storage')
  assert.equal(readdirSync(box.dir), ['a.checkpoint'])
})

test('pruneOldest() stops at the target, and takes what others have deleted for freed', async () => {
  await using box = await agedBox({
    'a.checkpoint': 1,
    'b.checkpoint': 1,
    'c.checkpoint': 1,
    'd.checkpoint': 1,
  })
  const { usedBytes, prunable } = await measure(box.dir)
  rmSync(box.path('work/a.checkpoint'))

  const result = await pruneOldest(box.dir, prunable, { usedBytes, targetBytes: usedBytes - 2 * MIB })

  assert.equal(result, {
    removedCount: 1,
    usedBytes: usedBytes - 2 * MIB,
    freedBytes: MIB,
    freedInodes: 1,
    broken: new Set(),
  })
  assert.equal(readdirSync(box.path('work')).sort(), ['c.checkpoint', 'd.checkpoint'])
})

test('pruneOldest() keeps to the order with a folder for each file, and more of them than it holds open', async () => {
  const names = Array.from({ length: 100 }, (_, age) => `work/run-${age}/m.checkpoint`)
  await using box = await sandbox(Object.fromEntries(names.map(name => [name, MIB])))
  for (const [age, name] of names.entries()) utimesSync(box.path(name), 1000 + age, 1000 + age)
  const { usedBytes, prunable } = await measure(box.dir)
  const pruned: string[] = []

  const result = await pruneOldest(box.dir, prunable, {
    usedBytes,
    targetBytes: usedBytes - 70 * MIB,
    onPrune: ({ path }) => pruned.push(path),
  })

  assert.equal(
    pruned,
    names.slice(0, 70).map(name => box.path(name)),
  )
  assert.equal(
    names.filter(name => existsSync(box.path(name))),
    names.slice(70),
  )
  assert.is(result.freedBytes, 70 * MIB)
})

test('pruneOldest() waits for what is being deleted when its caller fails or has had enough', async () => {
  const names = Array.from({ length: 600 }, (_, index) => `work/${index}.tmp`)
  await using box = await sandbox(Object.fromEntries(names.map(name => [name, 1])))
  const { usedBytes, prunable } = await measure(box.dir)
  const enough = AbortSignal.abort('enough')
  const broken = () => {
    throw new Error('broken')
  }

  const prune = { usedBytes, targetBytes: 0 }
  const aborted = await pruneOldest(box.dir, prunable, { ...prune, signal: enough }).catch(reason => reason)
  const allLeft = readdirSync(box.path('work')).length
  const { message } = await pruneOldest(box.dir, prunable, { ...prune, onPrune: broken }).catch(
    error => error,
  )
  const [left, descriptors] = [readdirSync(box.path('work')).length, descriptorsBelow(box.dir)]

  assert.equal([aborted, allLeft, message, descriptors], ['enough', 600, 'broken', 0])
  assert.ok(left < 600 && left >= 600 - 256, `${left} left`)
  await new Promise(resolve => setTimeout(resolve, 100))
  assert.is(readdirSync(box.path('work')).length, left)
})

test('pruneOldest() tells times that no Date can hold as the nearest that one can', async () => {
  await using box = await agedBox({ 'a.checkpoint': 1 })
  const { usedBytes, prunable } = await measure(box.dir)
  prunable[0]!.mtimeNs = 10n ** 25n
  const told: Pruned[] = []

  await pruneOldest(box.dir, prunable, {
    usedBytes,
    targetBytes: 0,
    dryRun: true,
    onPrune: pruned => told.push(pruned),
  })

  assert.equal(
    told.map(({ mtime }) => mtime),
    ['+275760-09-13T00:00:00.000Z'],
  )
})

test('freeSpace() is what df calls available', async () => {
  await using box = await sandbox()
  const df = () =>
    Number(execFileSync('df', ['--output=avail', '-B1', box.dir], { encoding: 'utf8' }).split('\n')[1])

  const freeBytes = freeSpace(box.dir)

  assert.ok(Math.abs(freeBytes - df()) < GIB, `${freeBytes} against ${df()}`)
  assert.throws(() => freeSpace(box.path('missing')), /Cannot tell the free space of .*missing/)
})

const CHURN = `
const { rmSync, writeFileSync } = require('node:fs')
const folder = process.argv[1]
const content = Buffer.alloc(100_000)
for (let round = 0; ; round++) {
  writeFileSync(folder + '/' + (round % 20) + '.checkpoint', content)
  if (round % 3 === 0) rmSync(folder + '/' + ((round * 7) % 20) + '.checkpoint', { force: true })
  if (round === 20) process.stdout.write('at work')
}`

/** A box with files of so many MiB in its `work/`, the oldest first. */
async function agedBox(files: Record<string, number>): Promise<Sandbox> {
  const box = await sandbox(Object.fromEntries(Object.keys(files).map(name => [`work/${name}`, 1])))
  for (const [name, mib] of Object.entries(files)) truncateSync(box.path('work', name), mib * MIB)
  age(box, Object.keys(files))
  return box
}

/** Give these names in `work/`, and the folders that they are in, the seconds 1000, 1001 and so on. */
function age(box: Sandbox, names: string[]): void {
  for (const [index, name] of names.entries()) {
    for (let path = name; path !== '.'; path = dirname(path))
      utimesSync(box.path('work', path), 1000 + index, 1000 + index)
  }
}

test.run()
