import { execFileSync } from 'node:child_process'
import { linkSync, renameSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { relative } from 'node:path'
import * as assert from 'uvu/assert'
import { publishedFiles } from '../../lib/models.ts'
import { type MeasureOptions, measure } from '../../lib/storage/measure.ts'
import { digFolders } from '../support/deep-folder.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('measure() orders by modification time to the nanosecond, before 1970 too', async () => {
  const times = {
    'a.tmp': '2020-01-01T00:00:00.000000003Z',
    'b.tmp': '2020-01-01T00:00:00.000000002Z',
    'c.tmp': '2020-01-01T00:00:00.000000001Z',
    'd.tmp': '1969-12-31T23:59:59.9Z',
    'e.tmp': '1960-01-01T00:00:00Z',
  }
  await using box = await sandbox(Object.fromEntries(Object.keys(times).map(name => [name, 10])))
  for (const [name, time] of Object.entries(times)) execFileSync('touch', ['-d', time, box.path(name)])

  const names = await prunableIn(box)

  assert.equal(names, ['e.tmp', 'd.tmp', 'c.tmp', 'b.tmp', 'a.tmp'])
})

test('measure() orders equal times by name with numbers as numbers, then by the bytes of the path', async () => {
  const names = [
    'work/a/epoch-9.checkpoint',
    'work/b/epoch-9.checkpoint',
    'work/epoch-09.checkpoint',
    'work/epoch-10.checkpoint',
    'work/a/epoch-10-step-2.checkpoint',
    'work/epoch-100.checkpoint',
    'work/epoch-18446744073709551616.checkpoint',
    'work/epoch-18446744073709551617.checkpoint',
  ]
  const expected = [0, 1, 2, 4, 3, 5, 6, 7].map(index => names[index]!)
  await using box = await sandbox(Object.fromEntries([...names].reverse().map(name => [name, 10])))
  for (const name of names) utimesSync(box.path(name), 1000, 1000)

  assert.equal(await prunableIn(box), expected)
})

test('measure() gives a folder the time of the newest thing in it', async () => {
  await using box = await sandbox({ 'work/run-b/deep/a': 10, 'work/run-a/a': 10 })
  for (const name of ['run-b/deep/a', 'run-b/deep', 'run-b']) utimesSync(box.path('work', name), 10, 10)
  for (const name of ['run-a/a', 'run-a']) utimesSync(box.path('work', name), 20, 20)
  utimesSync(box.path('work/run-b/deep/a'), 30, 30)

  const names = await prunableIn(box, { prune: ['run-*/'] })

  assert.equal(names, ['work/run-a', 'work/run-b'])
})

test('measure() lists a folder as one, with all bytes of what is in it', async () => {
  await using box = await sandbox({ 'work/checkpoint-1/a.tmp': 10_000, 'work/checkpoint-1/deep/b': 20_000 })
  const before = await measure(box.dir, { prune: ['checkpoint-*/'] })
  renameSync(box.path('work/checkpoint-1'), `${box.dir}-aside`)
  const without = await measure(box.dir)
  renameSync(`${box.dir}-aside`, box.path('work/checkpoint-1'))

  assert.is(before.prunable.length, 1)
  assert.is(before.prunable[0]!.bytes, before.usedBytes - without.usedBytes)
})

test('measure() leaves out what is kept, by its path, its inode or the folder that holds it', async () => {
  await using box = await sandbox({
    'work/a.checkpoint': 10,
    'work/b.checkpoint': 20,
    'work/c.checkpoint': 30,
    'work/best/d.checkpoint': 40,
    'work/runs/1/model.bin': 50,
    'work/runs/1/e.tmp': 60,
    'work/runs/2/f.tmp': 70,
    'elsewhere/twin': 0,
  })
  linkSync(box.path('work/b.checkpoint'), box.path('elsewhere/b'))
  symlinkSync(box.path('work'), box.path('elsewhere/work'))

  const names = await prunableIn(box, {
    prune: ['runs/*'],
    keep: [
      box.path('work/a.checkpoint'),
      box.path('elsewhere/b'),
      Buffer.from(box.path('elsewhere/work/c.checkpoint')),
      box.path('work/best'),
      box.path('work/runs/1/model.bin'),
      box.path('not/there'),
    ],
  })

  assert.equal(names.sort(), ['work/runs/1/e.tmp', 'work/runs/2'])
})

test('measure() leaves out what is kept beyond what a path can name', async () => {
  await using box = await sandbox({ 'a.tmp': 1 })
  using _deep = digFolders(box.dir, { levels: 60, name: 'd'.repeat(200) }, innermost => {
    writeFileSync(`${innermost}/b.tmp`, 'x')
  })
  const all = await measure(box.dir)
  const keep = all.prunable.flatMap(({ name, path }) => (name === 'b.tmp' ? [path] : []))

  const { prunable } = await measure(box.dir, { keep })

  assert.is(keep.length, 1)
  assert.equal(
    prunable.map(({ name }) => name),
    ['a.tmp'],
  )
})

test('what lies too deep to be pruned by itself goes with a folder above it', async () => {
  await using box = await sandbox({ 'work/x': 1 })
  using _deep = digFolders(box.path('work'), { levels: 100, name: 'd'.repeat(200) }, innermost => {
    writeFileSync(`${innermost}/a.checkpoint`, Buffer.alloc(8192))
  })

  const byRule = await measure(box.dir)
  const unnamed = await measure(box.dir, { unnamed: true })

  assert.equal(byRule.prunable, [])
  assert.equal(unnamed.prunable.map(({ name, bytes }) => [name.slice(0, 4), bytes >= 8192]).sort(), [
    ['dddd', true],
    ['x', false],
  ])
})

test('measure() leaves out what publishedFiles() gives: models, manifest, and the external data that a model or it names', async () => {
  await using box = await sandbox({
    'core.onnx': onnxModel({ external: [{ location: 'weights.tmp', offset: 0, length: 8 }] }),
    'weights.tmp': 8,
    'named.checkpoint': 8,
    'manifest.json': JSON.stringify({ metadata: {}, files: { 'named.checkpoint': 'a'.repeat(64) } }),
    'forgotten.tmp': 8,
    'work/weights.tmp': 8,
  })

  const keep = await publishedFiles(box.dir, ['*.onnx'])

  const byRule = await prunableIn(box, { keep })
  const byGlob = await prunableIn(box, { prune: ['*'], keep })

  assert.equal(byRule.sort(), ['forgotten.tmp', 'work/weights.tmp'])
  assert.equal(byGlob.sort(), ['forgotten.tmp', 'work/weights.tmp'])
})

test('measure() leaves out a hard link whose other name stays, counts one whose names all go once, and lists empty files', async () => {
  await using box = await sandbox({
    'work/model.bin': 10_000,
    'work/epoch-1.checkpoint': 20_000,
    'work/empty.tmp': 0,
  })
  linkSync(box.path('work/model.bin'), box.path('work/model.tmp'))
  linkSync(box.path('work/epoch-1.checkpoint'), box.path('work/latest.checkpoint'))

  const { prunable } = await measure(box.path('work'))

  assert.equal(
    prunable.map(({ name, bytes }) => [name, bytes]),
    [
      ['empty.tmp', 0],
      ['epoch-1.checkpoint', 0],
      ['latest.checkpoint', 20_480],
    ],
  )
})

async function prunableIn(box: Sandbox, options: MeasureOptions = {}): Promise<string[]> {
  const { prunable } = await measure(box.dir, options)
  return prunable.map(({ path }) => relative(box.dir, path.toString()))
}

test.run()
