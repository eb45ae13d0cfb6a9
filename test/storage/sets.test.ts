import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, relative } from 'node:path'
import * as assert from 'uvu/assert'
import { readQuotas } from '../../lib/settings/quotas-file.ts'
import type { PrunableSet } from '../../lib/storage/entry.ts'
import { type MeasureOptions, measure } from '../../lib/storage/measure.ts'
import { type Pruned, pruneOldest } from '../../lib/storage/prune.ts'
import { spare } from '../../lib/storage/spare.ts'
import { enforceLimit } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const K = 1024

test('files of one checkpoint are one set, by every convention of naming them', async () => {
  const sets = [
    ['ckpt-12.index', 'ckpt-12.data-00000-of-00002', 'ckpt-12.data-00001-of-00002'],
    ['epoch-3.model.checkpoint', 'epoch-3.optim.checkpoint'],
    ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors', 'model.safetensors.index.json'],
    ['step_100_model.pt', 'step_100_optimizer.pt'],
    ['e7_rank0.pt', 'e7_rank1.pt'],
    ['epoch=1-step=20.ckpt'],
    ['epoch=1-step=40.ckpt'],
    ['weights.05-0.42.h5'],
    ['weights.06-0.42.h5'],
    ['core.epoch-4.checkpoint'],
    ['core.epoch-5.checkpoint'],
    ['ab12cd.checkpoint'],
    ['ab12ef.checkpoint'],
    [
      'checkpoint-9/model-00001-of-00001.safetensors',
      'checkpoint-9/rng_state_0.pth',
      'checkpoint-9/deep/a.pt',
    ],
    ['version_0/epoch=1.ckpt'],
    ['version_0/epoch=2.ckpt'],
    ['cp.ckpt.index', 'cp.ckpt.data-00000-of-00001'],
    ['pytorch_model_00001_of_00002.bin', 'pytorch_model_00002_of_00002.bin', 'pytorch_model.bin.index.json'],
    ['rank0_step_300.pth', 'rank1_step_300.pth'],
    ['rank0_step_400.pth', 'rank1_step_400.pth'],
    ['step_7/optimizer.pt', 'step_7/step_7.pt'],
    ['backup/latest.weights.h5', 'backup/training_metadata.json', 'backup/latest.weights.h5.bkp'],
    ['iteration_1/epoch=2.ckpt'],
    ['iteration_1/epoch=3.ckpt'],
  ]
  await using box = await sandbox(Object.fromEntries(sets.flat().map(name => [`work/${name}`, 10])))

  const found = await setsIn(box, { prune: ['**/*'].flatMap(() => sets.flat()) })

  assert.equal(found.map(set => set.sort()).sort(byText), sets.map(set => [...set].sort()).sort(byText))
})

test('checkpoints go by their numbers, whatever their times; other patterns between them by time', async () => {
  await using box = await sandbox({
    'work/checkpoint-1000/a': 10,
    'work/checkpoint-400/a': 10,
    'work/checkpoint-9/a': 10,
    'work/other.checkpoint': 10,
  })
  setTime(box, 'work/checkpoint-1000', 100)
  setTime(box, 'work/checkpoint-400', 300)
  setTime(box, 'work/checkpoint-9', 50)
  setTime(box, 'work/other.checkpoint', 200)

  const found = await setsIn(box, { prune: ['checkpoint-*'] })

  assert.equal(found, [['checkpoint-9'], ['other.checkpoint'], ['checkpoint-400'], ['checkpoint-1000']])
})

test('of several numbers in a name those count from its epoch or step on; what is trained has a series of its own', async () => {
  const names = ['fold2-epoch=1', 'fold1-epoch=9', 'fold1-epoch=10', 'wer=9-step=200', 'wer=10-step=100']
  await using box = await sandbox(Object.fromEntries(names.map(name => [`work/${name}.ckpt`, 10])))
  const times = [300, 200, 100, 10, 20]
  for (const [index, name] of names.entries()) setTime(box, `work/${name}.ckpt`, times[index]!)

  const found = await setsIn(box, { prune: ['*.ckpt'] })

  assert.equal(
    found.map(([name]) => name),
    ['wer=10-step=100', 'wer=9-step=200', 'fold1-epoch=9', 'fold1-epoch=10', 'fold2-epoch=1'].map(
      name => `${name}.ckpt`,
    ),
  )
})

test('folders of checkpoints in a folder that is called as one are checkpoints of their own', async () => {
  await using box = await sandbox({
    'work/step1_pretrain/checkpoint-1/a': 10,
    'work/step1_pretrain/checkpoint-2/a': 10,
    'work/step1_pretrain/checkpoint-10/a': 10,
  })

  const found = await setsIn(box, { prune: ['**/checkpoint-*'] })

  assert.equal(
    found,
    [1, 2, 10].map(n => [`step1_pretrain/checkpoint-${n}`]),
  )
})

test('a time in the future is not believed, and is told', async () => {
  await using box = await sandbox({ 'work/a.checkpoint': 10, 'work/b.checkpoint': 10 })
  setTime(box, 'work/a.checkpoint', Date.now() / 1000 + 86_400)
  setTime(box, 'work/b.checkpoint', Date.now() / 1000 + 30)

  const { prunable, fromFuture } = await measure(box.dir)

  assert.equal(
    prunable.map(({ name }) => name),
    ['a.checkpoint', 'b.checkpoint'],
  )
  assert.is(fromFuture, box.path('work/a.checkpoint'))
})

test('a set is pruned as one, and no more of it than that', async () => {
  await using box = await sandbox(
    Object.fromEntries(
      [1, 2, 3].flatMap(n => [
        [`work/ckpt-${n}.data-00000-of-00001`, MIB],
        [`work/ckpt-${n}.index`, 4 * K],
      ]),
    ),
  )
  const pruned: Pruned[] = []

  await enforceLimit(box.dir, 2.5, { prune: ['ckpt-*'], onPrune: it => pruned.push(it) })

  assert.equal(readdirSync(box.path('work')).sort(), [
    'ckpt-2.data-00000-of-00001',
    'ckpt-2.index',
    'ckpt-3.data-00000-of-00001',
    'ckpt-3.index',
  ])
  assert.is(pruned.length, 2)
})

test('a set of which a file has changed since it was measured stays whole', async () => {
  await using box = await sandbox({ 'work/ckpt-1.data': 10, 'work/ckpt-1.index': 10 })
  const { prunable, usedBytes } = await measure(box.dir, { prune: ['ckpt-*'] })
  writeFileSync(box.path('work/ckpt-1.index'), 'written to')

  const { broken } = await pruneOldest(box.dir, prunable, { usedBytes, targetBytes: 0 })

  assert.equal(readdirSync(box.path('work')).sort(), ['ckpt-1.data', 'ckpt-1.index'])
  assert.is(broken.size, 0)
})

test('a set that is kept in part stays whole: by its path, by a glob, by a hard link that is published', async () => {
  await using box = await sandbox({
    'work/ckpt-1.data': 10,
    'work/ckpt-1.index': 10,
    'work/ckpt-2.data': 10,
    'work/ckpt-2.index': 10,
    'work/ckpt-3.data': 10,
    'work/ckpt-3.index': 10,
  })

  const found = await setsIn(box, {
    prune: ['ckpt-*'],
    keep: [box.path('work/ckpt-1.index')],
    keepGlobs: ['ckpt-2.index'],
  })

  assert.equal(found, [['ckpt-3.data', 'ckpt-3.index']])
})

test('a set stays whole where more is there than is listed', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('work'))
  for (let n = 1; n <= 60; n++) {
    for (const part of ['data', 'index']) {
      writeFileSync(box.path(`work/ckpt-${n}.${part}`), 'x')
      // The parts of each lie far apart in time.
      utimesSync(box.path(`work/ckpt-${n}.${part}`), n, part === 'data' ? n : 1000 + n)
    }
  }

  const { prunable, isCut } = await measure(box.dir, { prune: ['ckpt-*'], most: 10 })

  assert.ok(isCut)
  assert.ok(prunable.length >= 2)
  for (const { set } of prunable) assert.is(set.entries.length, 2)
  assert.is(basename(prunable[0]!.set.path), 'ckpt-1')
})

test('where more is there than is listed, the newest can be asked for: by numbers, whatever the times', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('work'))
  for (let n = 1; n <= 60; n++) {
    writeFileSync(box.path(`work/ckpt-${n}.data`), 'x')
    utimesSync(box.path(`work/ckpt-${n}.data`), 1000 - n, 1000 - n)
  }
  const options = { prune: ['ckpt-*'], most: 10 }

  const oldest = await measure(box.dir, options)
  const newest = await measure(box.dir, { ...options, which: 'newest' })

  assert.ok(oldest.isCut && newest.isCut)
  assert.is(oldest.prunable[0]!.name, 'ckpt-1.data')
  assert.is(newest.prunable.at(-1)!.name, 'ckpt-60.data')
  assert.ok(newest.prunable.every(({ name }) => Number(/\d+/.exec(name)![0]) > 30))
})

const POINTERS: [string, (box: Sandbox) => void][] = [
  ['a link', box => symlinkSync('checkpoint-2', box.path('work/best'))],
  ['a link into it', box => symlinkSync('./checkpoint-2/a', box.path('work/last.pt'))],
  ['an absolute link', box => symlinkSync(box.path('work/checkpoint-2'), box.path('work/best'))],
  ['DeepSpeed', box => writeFileSync(box.path('work/latest'), 'checkpoint-2\n')],
  [
    'TensorFlow',
    box =>
      writeFileSync(
        box.path('work/checkpoint'),
        'model_checkpoint_path: "checkpoint-2"\nall_model_checkpoint_paths: "checkpoint-1"\n',
      ),
  ],
  [
    'Transformers, with the folder of another machine',
    box =>
      writeFileSync(
        box.path('work/checkpoint-4/trainer_state.json'),
        `{"best_metric": 0.5, "best_model_checkpoint": "/data/out/checkpoint-2", "log_history": [${'1,'.repeat(99_999)}1]}`,
      ),
  ],
]
for (const [name, point] of POINTERS) {
  test(`what is pointed to goes last, and its pointer is told: ${name}`, async () => {
    await using box = await sandbox(Object.fromEntries([1, 2, 3, 4].map(n => [`work/checkpoint-${n}/a`, 10])))
    point(box)

    const { prunable } = await measure(box.dir, { prune: ['checkpoint-*'] })

    assert.equal(
      prunable.map(({ name, set }) => [name, set.pointer !== undefined]),
      [
        ['checkpoint-1', false],
        ['checkpoint-3', false],
        ['checkpoint-4', false],
        ['checkpoint-2', true],
      ],
    )
  })
}

test('what is the best one goes with that word, by a link, a state or its name, and what is the last goes without', async () => {
  await using box = await sandbox({
    'work/checkpoint-1/a': 10,
    'work/checkpoint-2/a': 10,
    'work/checkpoint-3/a': 10,
    'work/epoch_best.pt': 10,
    'work/epoch_last.pt': 10,
  })
  symlinkSync('checkpoint-1', box.path('work/best.ckpt'))
  // It is the last of all, and the best so far.
  symlinkSync('checkpoint-2', box.path('work/last'))
  writeFileSync(box.path('work/checkpoint-3/trainer_state.json'), '{"best_model_checkpoint": "checkpoint-2"}')
  const best: string[] = []

  const onPrune = ({ path, isBest }: Pruned) => isBest && best.push(basename(path))
  const { prunable, usedBytes } = await measure(box.dir, { prune: ['*.pt', 'checkpoint-*'] })
  await pruneOldest(box.dir, prunable, { usedBytes, targetBytes: 0, onPrune })

  assert.equal(best.sort(), ['checkpoint-1', 'checkpoint-2', 'epoch_best.pt'])
})

test('a set is shown by the name of the file or folder that it is, or by what its files begin with', async () => {
  await using box = await sandbox({
    'work/ck-11.checkpoint': 10,
    'work/step_4/a': 10,
    'work/ckpt-3.data': 10,
    'work/ckpt-3.index': 10,
  })

  const { prunable } = await measure(box.dir, { prune: ['ckpt-*', 'step_*'] })

  const shown = new Set(prunable.map(({ set }) => basename(set.shownPath)))
  assert.equal([...shown].sort(), ['ck-11.checkpoint', 'ckpt-3', 'step_4'])
})

test("Lightning's last checkpoint is kept, and not those of starts that did not resume from it", async () => {
  const names = ['last.ckpt', 'last-v1.ckpt', 'last-v2.ckpt', 'epoch=0-step=5.ckpt']
  const job = { maxDiskMb: 5, train: ['t'], framework: 'lightning' }
  await using box = await sandbox({
    'quotas.json': JSON.stringify({ jobs: { core: job, dpi: job, agent: job } }),
    ...Object.fromEntries(names.map(name => [`work/${name}`, 10])),
  })

  const found = await setsIn(box, readQuotas(box.path('quotas.json')).jobs.core.globs)

  assert.equal(found.flat().sort(), ['epoch=0-step=5.ckpt', 'last-v1.ckpt', 'last-v2.ckpt'])
})

test('what is the last or the best by its own name goes last; of numbered ones only the newest is', async () => {
  const names = [
    'epoch_last.pt',
    'model_best.pth.tar',
    'best-epoch=2.ckpt',
    'best-epoch=3.ckpt',
    'blast_1.pt',
    'epoch_9.pt',
  ]
  await using box = await sandbox(Object.fromEntries(names.map(name => [`work/${name}`, 10])))
  for (const [index, name] of names.entries()) setTime(box, `work/${name}`, 100 + index)

  const found = await setsIn(box, { prune: ['*.pt', '*.tar', '*.ckpt'] })

  assert.equal(
    found.map(([name]) => name),
    [
      'best-epoch=2.ckpt',
      'blast_1.pt',
      'epoch_9.pt',
      'epoch_last.pt',
      'model_best.pth.tar',
      'best-epoch=3.ckpt',
    ],
  )
})

test("Megatron's file names an iteration, and DeepSpeed's no number", async () => {
  await using box = await sandbox({ 'work/iter_0000100/a': 1, 'work/iter_0000200/a': 1 })
  writeFileSync(box.path('work/latest_checkpointed_iteration.txt'), '100')

  const { prunable } = await measure(box.dir, { prune: ['*'] })

  assert.equal(
    prunable.map(({ name, set }) => [name, set.pointer && basename(set.pointer)]),
    [
      ['iter_0000200', undefined],
      ['iter_0000100', 'latest_checkpointed_iteration.txt'],
    ],
  )
})

test('a pointer that is a trap is no pointer: a FIFO, a link to a device, a folder, words', async () => {
  await using box = await sandbox({ 'work/checkpoint-1/a': 1, 'work/latest/a': 1 })
  symlinkSync('/dev/zero', box.path('work/checkpoint'))
  writeFileSync(box.path('work/last_checkpoint'), 'x'.repeat(300_000))
  symlinkSync('x'.repeat(4000), box.path('work/loop'))

  const { prunable } = await measure(box.dir, { prune: ['checkpoint-*'] })

  assert.equal(
    prunable.map(({ name, set }) => [name, set.pointer]),
    [['checkpoint-1', undefined]],
  )
})

test('leftovers go first, caches next, what is superseded before checkpoints', async () => {
  await using box = await sandbox({
    'work/a.checkpoint': 10,
    'generations/1/core.onnx': 10,
    'work/cache/huggingface/hub/a': 10,
    'work/home/.triton/a': 10,
    'work/tmp-checkpoint-5/model.pt': 10,
    'work/model.bin.partial': 10,
    'work/old.tmp': 10,
  })
  setTime(box, 'work/a.checkpoint', 1)

  const found = await setsIn(box, { superseded: [box.path('generations/1')] })

  assert.equal(found.slice(0, 3).sort(byText), [['model.bin.partial'], ['old.tmp'], ['tmp-checkpoint-5']])
  assert.equal(found.slice(3, 5).sort(byText), [['cache/huggingface'], ['home/.triton']])
  assert.equal(found.slice(5), [['../generations/1'], ['a.checkpoint']])
})

test('a cache that holds nothing goes last: it gives no room, and would be made again', async () => {
  await using box = await sandbox({ 'work/a.checkpoint': 10, 'work/cache/full/a': 10 })
  mkdirSync(box.path('work/cache/torchinductor'))

  const found = await setsIn(box, {})

  assert.equal(found, [['cache/full'], ['a.checkpoint'], ['cache/torchinductor']])
})

test('what is half-written by its name is a leftover, also where a glob names it as a checkpoint', async () => {
  const half = [
    ...[
      'tmp-ckpt-4',
      '.tmp-ckpt-4',
      '_tmp_ckpt_4',
      'temp_ckpt_4',
      'partial-ckpt-4',
      'ckpt-4.tmp',
      'ckpt-4-tmp',
    ],
    ...[
      'ckpt-4.pt.tmp.4711',
      'ckpt-4.pt.part',
      'ckpt-4.pt.saving',
      'ckpt-4.incomplete',
      'ckpt-4_temp',
      'ckpt-4.pt~',
    ],
    ...[
      '4.orbax-checkpoint-tmp-17',
      'ckpt-4.data-00000-of-00001.tempstate123',
      'tmpk3j_x9qa',
      'tmp-4.checkpoint',
    ],
  ]
  const whole = [
    'ckpt-1',
    'temp_0.7-ckpt-2',
    'temp_forecast.onnx',
    'template-ckpt-3',
    'ckpt-temp-5',
    'partition-ckpt-6',
  ]
  await using box = await sandbox(Object.fromEntries([...half, ...whole].map(name => [`work/${name}/a`, 10])))

  const { prunable } = await measure(box.dir, { prune: ['*'] })

  const named = (rule: string) => prunable.filter(it => (it.rule === 'leftover') === (rule === 'leftover'))
  assert.equal(
    named('leftover')
      .map(({ name }) => name)
      .sort(),
    half.sort(),
  )
  assert.equal(
    named('*')
      .map(({ name }) => name)
      .sort(),
    whole.sort(),
  )
})

test('what a living training is writing is no leftover, however it is named', async () => {
  await using box = await sandbox({
    'work/tmp-checkpoint-5/model.pt': 10,
    'work/tmp-checkpoint-4/model.pt': 10,
  })
  setTime(box, 'work/tmp-checkpoint-4', 1000)

  const found = await setsIn(box, { liveSinceNs: 2000n * 10n ** 9n })

  assert.equal(found, [['tmp-checkpoint-4']])
})

test('the newest complete checkpoint is spared, and so is what is being written after it', async () => {
  await using box = await sandbox({
    'work/checkpoint-1/model': 90_000,
    'work/checkpoint-1/optimizer': 90_000,
    'work/checkpoint-2/model': 90_000,
    'work/checkpoint-2/optimizer': 90_000,
    'work/checkpoint-3/model': 90_000,
    'work/last-4.json': 10,
    'work/tmp-checkpoint-5/model': 90_000,
  })

  assert.equal(await sparedIn(box, ['*']), {
    'checkpoint-2': 'the newest complete checkpoint',
    'checkpoint-3': 'being written',
    'tmp-checkpoint-5': 'being written',
  })
  // Nobody goes on with it: half of a checkpoint that was left so for long is all that there will be.
  for (const name of ['checkpoint-3', 'tmp-checkpoint-5'])
    setTime(box, `work/${name}`, Date.now() / 1000 - 100)
  rmSync(box.path('work/tmp-checkpoint-5'), { recursive: true })
  assert.equal(await sparedIn(box, ['*']), { 'checkpoint-3': 'the newest complete checkpoint' })
})

test('the best checkpoint is not the newest one, however young it is, unless there is no other', async () => {
  await using box = await sandbox({ 'work/best.pt': 9000 })
  assert.equal(await sparedIn(box, ['*.pt']), { best: 'the newest complete checkpoint' })
  for (const [index, name] of ['epoch_1', 'epoch_2', 'best'].entries()) {
    writeFileSync(box.path(`work/${name}.pt`), Buffer.alloc(9000))
    setTime(box, `work/${name}.pt`, Date.now() / 1000 - 10 + index)
  }

  assert.equal(await sparedIn(box, ['*.pt']), { epoch_2: 'the newest complete checkpoint' })
})

test('what is half-written is told by the one before of its pattern, not by a small one of another', async () => {
  await using box = await sandbox({
    'work/epoch_1.pt': 90_000,
    'work/ema_1.pt': 30_000,
    'work/epoch_2.pt': 30_000,
  })
  for (const [index, name] of ['epoch_1', 'ema_1', 'epoch_2'].entries())
    setTime(box, `work/${name}.pt`, Date.now() / 1000 - 10 + index)

  const spared = await sparedIn(box, ['*.pt'])

  assert.is(spared.epoch_2, 'being written')
})

test('checkpoints of several models of one number are spared together', async () => {
  await using box = await sandbox({
    'work/G_100.pth': 9000,
    'work/D_100.pth': 9000,
    'work/G_200.pth': 9000,
    'work/D_200.pth': 9000,
  })

  assert.equal(Object.keys(await sparedIn(box, ['*.pth'])).sort(), ['D_200', 'G_200'])
})

test('a checkpoint that has grown since the last look, is open or was broken is not the newest complete one', async () => {
  await using box = await sandbox({
    'work/epoch=1.ckpt': 9000,
    'work/epoch=2.ckpt': 9000,
    'work/epoch=3.ckpt': 9000,
    'work/epoch=4.ckpt': 9000,
  })
  const path = (n: number) => box.path(`work/epoch=${n}`)

  const spared = await sparedIn(box, ['*.ckpt'], {
    sizes: new Map([[path(4), 100]]),
    isOpen: set => set.path === path(3),
    broken: new Set([path(2)]),
  })

  assert.equal(spared, {
    'epoch=4': 'being written',
    'epoch=3': 'in use',
    'epoch=1': 'the newest complete checkpoint',
  })
})

test('a checkpoint that was half-written at the last look is complete once the next one is begun', async () => {
  await using box = await sandbox({
    'work/checkpoint-1/model': 90_000,
    'work/checkpoint-2/model': 90_000,
    'work/checkpoint-3/model': 10,
  })
  const path = (n: number) => box.path(`work/checkpoint-${n}`)
  for (const n of [1, 2, 3]) setTime(box, `work/checkpoint-${n}`, Date.now() / 1000 - 10 + n)
  const halfBytes = new Map([[path(2), 50_000]])

  const begun = await sparedIn(box, ['checkpoint-*'], { sizes: halfBytes })
  // An older one tells nothing, whenever it was touched.
  rmSync(box.path('work/checkpoint-3'), { recursive: true })
  setTime(box, 'work/checkpoint-1', Date.now() / 1000)
  const touched = await sparedIn(box, ['checkpoint-*'], { sizes: halfBytes })
  // Each of several processes may write a part of it, and one of them be ahead.
  mkdirSync(box.path('work/checkpoint-3'))
  setTime(box, 'work/checkpoint-3', Date.now() / 1000 - 20)
  const both = await sparedIn(box, ['checkpoint-*'], { sizes: halfBytes })

  assert.equal(begun, { 'checkpoint-2': 'the newest complete checkpoint' })
  const unfinished = {
    'checkpoint-1': 'the newest complete checkpoint',
    'checkpoint-2': 'being written',
  }
  assert.equal([touched, both], [unfinished, unfinished])
})

test('a set of which a file cannot be deleted is told, and is no checkpoint any more', async () => {
  await using box = await sandbox({
    'work/a/ckpt-1.data': MIB,
    'work/b/ckpt-1.data': MIB,
    'work/a/ckpt-1.index': K,
  })
  const faults: string[] = []
  const index = box.path('work/a/ckpt-1.index')
  execFileSync('chattr', ['+i', index])
  const { prunable, usedBytes } = await measure(box.dir, { prune: ['**/ckpt-*'] })

  const { broken } = await pruneOldest(box.dir, prunable, {
    usedBytes,
    targetBytes: 0,
    onFault: message => faults.push(message),
  })

  execFileSync('chattr', ['-i', index])
  assert.equal(
    [...broken].map(({ path }) => path),
    [box.path('work/a/ckpt-1')],
  )
  assert.match(faults[0]!, /Cannot delete .*ckpt-1.index: EPERM/)
  assert.match(faults[1]!, /work\/a\/ckpt-1 was pruned in part: what is left of it is no whole checkpoint/)
})

test('a read-only folder of ours is opened up for a deletion', async () => {
  await using box = await sandbox({ 'work/e1/x.checkpoint': MIB, 'work/e2/x.checkpoint': MIB })
  const faults: string[] = []

  for (const name of ['', 'work', 'work/e1', 'work/e2', 'work/e1/x.checkpoint', 'work/e2/x.checkpoint'])
    chownSync(box.path(name), 65534, 65534)
  for (const name of ['work/e1', 'work/e2']) chmodSync(box.path(name), 0o555)

  await asNobody(() => enforceLimit(box.dir, 1.5, { onFault: it => faults.push(it) }))

  assert.not(existsSync(box.path('work/e1/x.checkpoint')))
  assert.equal(faults, [])
})

test('a folder that goes is told as gone also where the folder above it is read-only', async () => {
  await using box = await sandbox({
    'work/run/checkpoint-1/model': MIB,
    'work/run/checkpoint-2/model': MIB,
    'work/run/checkpoint-3/model': MIB,
  })
  const names = [
    '',
    'work',
    'work/run',
    ...[1, 2, 3].flatMap(n => [`work/run/checkpoint-${n}`, `work/run/checkpoint-${n}/model`]),
  ]
  for (const name of names) chownSync(box.path(name), 65534, 65534)
  chmodSync(box.path('work/run'), 0o555)
  const pruned: string[] = []

  await asNobody(() =>
    enforceLimit(box.dir, 2.5, { prune: ['**/checkpoint-*'], onPrune: it => pruned.push(it.path) }),
  )

  assert.equal(pruned, [box.path('work/run/checkpoint-1')])
  assert.equal(readdirSync(box.path('work/run')).sort(), ['checkpoint-2', 'checkpoint-3'])
})

test('"nothing left to prune" names the largest things that stayed, each with its reason, and what would help', async () => {
  await using box = await sandbox(
    Object.fromEntries([
      ...[1, 2, 3].map(n => [`work/epoch=${n}.ckpt`, MIB] as const),
      ['work/best.pt', MIB / 2] as const,
      ['core.onnx', MIB / 4] as const,
    ]),
  )

  const error = await enforceLimit(box.dir, 1, {
    keepGlobs: ['best.pt'],
    keep: [box.path('core.onnx')],
  }).catch(reason => reason)

  assert.match(
    error.message,
    'with nothing left to prune, its limit is 1 MiB; left are 3 files epoch=*.ckpt (3 MiB, no rule names them), ' +
      '1 file best.pt (512 KiB, named by keep), 1 file core.onnx (256 KiB, published); ' +
      'if they are checkpoints, add "prune": ["epoch=*.ckpt"] to the job in quotas.json; raise the limit',
  )
})

test('what would help names folders of checkpoints, not one kind of the files in them', async () => {
  const files = { 'optimizer.bin': MIB / 2, 'model.safetensors': MIB / 4, 'random_states_0.pkl': 10 }
  const folders = Array.from({ length: 10 }, (_, n) => `work/checkpoints/checkpoint_${n}`)
  await using box = await sandbox(
    Object.fromEntries(
      folders.flatMap(folder => Object.entries(files).map(([name, size]) => [`${folder}/${name}`, size])),
    ),
  )

  const error = await enforceLimit(box.dir, 1).catch(reason => reason)

  assert.match(error.message, 'left are 30 files checkpoints/checkpoint_* (7.5 MiB, no rule names them); ')
  assert.match(error.message, 'add "prune": ["checkpoints/checkpoint_*"] to the job')
  const { usedBytes } = await enforceLimit(box.dir, 1, { prune: ['checkpoints/checkpoint_*'] })
  assert.ok(usedBytes <= MIB)
})

async function setsIn(box: Sandbox, options: MeasureOptions): Promise<string[][]> {
  const { prunable } = await measure(box.dir, options)
  const sets = [...new Set(prunable.map(({ set }) => set))]
  return sets.map(({ entries }) => entries.map(({ path }) => relative(box.path('work'), path.toString())))
}

async function sparedIn(
  box: Sandbox,
  prune: string[],
  situation: Partial<Parameters<typeof spare>[1]> = {},
): Promise<Record<string, string>> {
  const { prunable, isCut } = await measure(box.dir, { prune, liveSinceNs: 0n })
  const sets = [...new Set(prunable.map(({ set }) => set))]
  const none = { isOpen: () => false, sizes: new Map(), broken: new Set<string>(), isCut }
  const spared: Map<PrunableSet, string> = spare(sets, { ...none, ...situation })
  return Object.fromEntries([...spared].map(([{ path }, why]) => [basename(path), why]))
}

function setTime(box: Sandbox, name: string, seconds: number): void {
  for (const below of [...readdirOrNone(box.path(name)), ''])
    utimesSync(`${box.path(name)}/${below}`.replace(/\/$/, ''), seconds, seconds)
}

function readdirOrNone(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function byText(a: string[], b: string[]): number {
  return a.join() < b.join() ? -1 : 1
}

test.run()
