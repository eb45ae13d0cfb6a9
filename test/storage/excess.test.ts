import {
  chmodSync,
  closeSync,
  existsSync,
  fstatSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import * as assert from 'uvu/assert'
import { excessTest, findExcess } from '../../lib/storage/excess.ts'
import { measure } from '../../lib/storage/measure.ts'
import { pruneTo, removeExcess, removeGrowing, removeUnnamed } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { failure } from '../support/failure.ts'
import { sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const rules = { prune: ['epochs/'], keepGlobs: ['kept/'] }

/** Files of a violation: some may go at once, and some stay whatever they take. */
async function violated() {
  const box = await sandbox({
    'core.onnx': MIB,
    'work/part': 2 * MIB,
    'work/deep/er/part': 2 * MIB,
    'work/tmp/batch': 2 * MIB,
    'work/small': 1000,
    'work/a.checkpoint': 2 * MIB,
    'work/epochs/5/state': 2 * MIB,
    'work/kept/state': 2 * MIB,
    'work/cache/hub/weights': 2 * MIB,
    'work/best.bin': 2 * MIB,
    'work/linked': 2 * MIB,
    'generations/1/core.onnx': 2 * MIB,
  })
  linkSync(box.path('work/linked'), box.path('work/other'))
  return box
}

test('findExcess() finds files in work/ that no rule names, and are not kept', async () => {
  await using box = await violated()

  const { found } = await findExcess(box.dir, { ...rules, keep: [box.path('work/best.bin')] }, Infinity)

  assert.equal(found.map(({ path }) => `${path}`.slice(box.dir.length + 1)).sort(), [
    'work/deep/er/part',
    'work/part',
    'work/small',
    'work/tmp/batch',
  ])
  assert.ok(found.every(({ bytes, set }) => set.bytes === bytes))
})

test('excessTest() tells the same of a path, and takes of checkpoints what grows', async () => {
  await using box = await violated()
  const isExcess = await excessTest(box.dir, { ...rules, keep: [box.path('work/best.bin')] })
  const excess = (isGrowing: boolean) =>
    [
      'core.onnx',
      'part',
      'deep/er/part',
      'tmp/batch',
      'a.checkpoint',
      'epochs/5/state',
      'kept/state',
      'best.bin',
    ]
      .map(name => (name === 'core.onnx' ? name : `work/${name}`))
      .filter(name => isExcess(box.path(name), { ...statSync(box.path(name), { bigint: true }), isGrowing }))

  const others = ['work/part', 'work/deep/er/part', 'work/tmp/batch']
  assert.equal(excess(false), others)
  assert.equal(excess(true), [...others, 'work/a.checkpoint', 'work/epochs/5/state'])
})

test('findExcess() ends with enough, and with few small files', async () => {
  await using box = await sandbox({ 'work/last/part': 2 * MIB })
  for (let n = 0; n < 3000; n++) writeFileSync(box.path(`work/${n}`), 'x')

  const few = await findExcess(box.dir, {}, 10 * 4096)
  const all = await findExcess(box.dir, {}, Infinity)

  assert.ok(few.smallCount <= 10 && !few.isCut)
  assert.ok(few.found.reduce((sum, { bytes }) => sum + bytes, 0) >= 10 * 4096)
  assert.is(all.found.length - all.smallCount, 1)
  assert.ok(all.smallCount === 1024 && all.isCut)
})

test('removeExcess() deletes some of many small files, down to the limit and as much again', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('work'))
  for (let n = 0; n < 2000; n++) writeFileSync(box.path(`work/${n}`), 'x')

  const { gone } = await removeExcess(box.dir, { usedBytes: 10 * 4096, limitBytes: 0 }, {})

  assert.is(readdirSync(box.path('work')).length, 2000 - gone.length)
  assert.ok(gone.length >= 10 && gone.length <= 200, `${gone.length}`)
})

test('removeExcess() takes the content of what is still open, but of no file with another name', async () => {
  await using box = await sandbox({ 'work/part': 2 * MIB, 'work/named': 2 * MIB })
  linkSync(box.path('work/named'), box.path('other'))
  const fd = openSync(box.path('work/part'), 'r')
  chmodSync(box.path('work/part'), 0)

  await removeUnnamed(box.dir, { usedBytes: 2 * MIB, limitBytes: 1 }, {})

  assert.is(fstatSync(fd).size, 0)
  assert.is(statSync(box.path('other')).size, 2 * MIB)
  closeSync(fd)
})

test('removeGrowing() deletes checkpoints that were written to since then, and no others', async () => {
  await using box = await sandbox({ 'work/1.checkpoint': 1000, 'work/2.checkpoint': 1000, 'work/part': 1000 })
  const sinceNs = statSync(box.path('work/part'), { bigint: true }).mtimeNs + 10n ** 9n
  utimesSync(box.path('work/2.checkpoint'), new Date(), new Date(Number(sinceNs / 10n ** 6n) + 1))

  await removeGrowing(box.dir, sinceNs, {})

  assert.equal(readdirSync(box.path('work')), ['1.checkpoint'])
})

test('removeUnnamed() deletes files down to the limit before it counts, then the rest', async () => {
  await using box = await violated()
  const { usedBytes } = await measure(box.dir)
  const pruned: [path: string, usedBytes: number][] = []
  const onPrune = (it: { path: string; usedBytes: number }) => pruned.push([it.path, it.usedBytes])

  await removeUnnamed(box.dir, { usedBytes, limitBytes: usedBytes - 1 }, { ...rules, onPrune })

  const [[first, left], ...rest] = pruned as [[string, number], ...typeof pruned]
  assert.match(first, /\/(part|batch|small)$/)
  assert.ok(left < usedBytes)
  assert.ok(rest.some(([path]) => path.endsWith('/other')))
  const { prunable } = await measure(box.dir, { ...rules, unnamed: true })
  assert.equal(prunable, [])
})

test('pruneTo() removes what no rule names before it tells of that, where that is asked for', async () => {
  await using box = await violated()
  const limitBytes = 13 * MIB

  const before = await failure(() => pruneTo(box.dir, limitBytes, rules))
  const isThere = (name: string) => existsSync(box.path(name))
  assert.ok(isThere('work/part') && !isThere('work/a.checkpoint'))
  const after = await failure(() => pruneTo(box.dir, limitBytes, { ...rules, removesExcess: true }))

  assert.not(isThere('work/part'))
  assert.ok(isThere('work/kept/state') && isThere('core.onnx'))
  assert.is(after.code, 'quota-exceeded')
  const words = /holds 15\.0 MiB .*; left are 1 file \S+ \(2 MiB, no rule names them\), /
  for (const { message } of [before, after]) assert.match(message, words)
})

test('removeUnnamed() does not begin with what a smaller usage does not ask for', async () => {
  await using box = await sandbox({ 'work/part': 2 * MIB })
  writeFileSync(box.path('work/empty'), '')
  const paths: string[] = []

  await removeUnnamed(box.dir, { usedBytes: 1, limitBytes: 2 }, { onPrune: it => paths.push(it.path) })

  assert.equal(paths.map(path => path.slice(box.dir.length + 1)).sort(), ['work/empty', 'work/part'])
})

inSweep('removeUnnamed() goes on behind more hard links than are listed at a time', async () => {
  await using box = await sandbox({ 'work/tmp/.keep': 1, 'work/first': 1 })
  for (let n = 0; n < 33_000; n++) linkSync(box.path('work/first'), box.path('work', `${n}`))
  utimesSync(box.path('work/first'), 1, 1)
  writeFileSync(box.path('work/last'), 'x')

  await removeUnnamed(box.dir, { usedBytes: 1, limitBytes: 2 }, {})

  assert.equal(readdirSync(box.path('work')), ['tmp'])
})

test.run()
