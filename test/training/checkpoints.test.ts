import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import { type JobName, jobNames } from '../../lib/quotas.ts'
import { MOST_ENTRIES } from '../../lib/storage/entries-by-age.ts'
import { publishes, type Rig, trainerRig } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const MIB = 2 ** 20

/** Writes a file in pieces; publishes a model of this one training. */
const HELPERS = `
const mib = 2 ** 20
const write = async (file, pieces) => {
  const fd = fs.openSync(dir + '/' + file, 'w')
  for (let n = 0; n < pieces; n++) { fs.writeSync(fd, Buffer.alloc(mib, n)); await sleep(20) }
  fs.closeSync(fd)
}
const has = file => fs.existsSync(dir + '/' + file)
`

inSweep(
  'a checkpoint that is written in place, file by file, does not cost the complete one before it',
  async () => {
    const trainer = `${HELPERS}
for (const step of [100, 200, 300]) {
  fs.mkdirSync(dir + '/checkpoint-' + step)
  await write('checkpoint-' + step + '/model.safetensors', 4)
  await sleep(300)
  if (step > 100) console.log('whole', step, has('checkpoint-' + (step - 100) + '/optimizer.pt'))
  await write('checkpoint-' + step + '/optimizer.pt', 3)
}
${publishes}`
    await using rig = await trainerRig({ core: { maxDiskMb: 20, framework: 'huggingface', trainer } })

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    assert.equal(linesOf(rig, 'whole'), ['whole 200 true', 'whole 300 true'])
    assert.equal(prunedIn(events), ['checkpoint-100'])
  },
)

test('of a checkpoint of several files all go or all stay, and the newest whole one stays', async () => {
  const trainer = `${HELPERS}
for (const n of [1, 2, 3, 4, 5]) {
  await write('ckpt-' + n + '.data-00000-of-00001', 5)
  await write('ckpt-' + n + '.index', 1)
  fs.writeFileSync(dir + '/checkpoint', 'model_checkpoint_path: "ckpt-' + n + '"')
  await sleep(150)
  const halves = [1, 2, 3, 4, 5].filter(m => has('ckpt-' + m + '.index') !== has('ckpt-' + m + '.data-00000-of-00001'))
  console.log('newest', n, has('ckpt-' + n + '.index') && !halves.length)
}
${publishes}`
  await using rig = await trainerRig({ core: { maxDiskMb: 20, framework: 'tensorflow', trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 0)
  assert.equal(
    linesOf(rig, 'newest'),
    [1, 2, 3, 4, 5].map(n => `newest ${n} true`),
  )
  const pruned = prunedIn(events)
  assert.ok(pruned.length >= 4 && pruned.length % 2 === 0, pruned.join())
})

const BEST: [string, string, Parameters<typeof rigOf>[0]][] = [
  ['a link', `fs.symlinkSync('checkpoint-200', dir + '/best')`, { prune: ['checkpoint-*'] }],
  [
    'the state of a Trainer',
    `state = JSON.stringify({ best_metric: 0.1, best_model_checkpoint: dir + '/checkpoint-200' })`,
    { framework: 'huggingface' },
  ],
  ['the glob keep', '', { prune: ['checkpoint-*'], keep: ['checkpoint-200'] }],
]
// How each is read has a test without a training.
for (const [what, point, quota] of BEST) {
  inSweep(`the best checkpoint stays though it is old: ${what}`, async () => {
    const trainer = `${HELPERS}
let state = '{}'
for (let step = 100; step <= 700; step += 100) {
  fs.mkdirSync(dir + '/tmp-checkpoint-' + step)
  await write('tmp-checkpoint-' + step + '/model.safetensors', 4)
  if (step === 200) { ${point} }
  fs.writeFileSync(dir + '/tmp-checkpoint-' + step + '/trainer_state.json', state)
  fs.renameSync(dir + '/tmp-checkpoint-' + step, dir + '/checkpoint-' + step)
}
console.log('best', has('checkpoint-200/model.safetensors'))
${publishes}`
    await using rig = await rigOf({ maxDiskMb: 24, ...quota }, trainer)

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0, JSON.stringify(events))
    assert.equal(linesOf(rig, 'best'), ['best true'])
    assert.ok(prunedIn(events).includes('checkpoint-100'))
  })
}

inSweep(
  'the best goes before the training is killed, also right after what goes before it; who publishes without it is warned',
  async () => {
    const trainer = `${HELPERS}
if (!has('log.bin')) {
  await write('epoch-0.checkpoint', 1)
  await write('epoch-1.checkpoint', 6)
  fs.symlinkSync('epoch-1.checkpoint', dir + '/best')
  // Renamed, it has not grown since the run last looked, whenever that was.
  await write('epoch-2.tmp', 6)
  fs.renameSync(dir + '/epoch-2.tmp', dir + '/epoch-2.checkpoint')
  // Above the limit at once: neither of the others alone is enough.
  fs.writeFileSync(dir + '/log.bin', '')
  fs.truncateSync(dir + '/log.bin', 8 * mib)
  while (has('epoch-1.checkpoint')) await sleep(20)
  console.log('left', has('epoch-0.checkpoint'), has('epoch-2.checkpoint'))
  process.exit(1)
}
${publishes}`
    await using rig = await rigOf({ maxDiskMb: 16 }, trainer)

    const first = await rig.run(['core', '--json'])
    const second = await rig.run(['core', '--json'])

    assert.equal([first.exitCode, second.exitCode], [1, 0])
    assert.equal(linesOf(rig, 'left'), ['left false true'])
    const [epoch, best] = ['epoch-1.checkpoint', 'best'].map(name => join(workDir(rig), name))
    assert.equal(warningsIn(first.events), [
      `pruned ${epoch}, the best one by ${best}: nothing else was left to prune. A training that loads it at its end ` +
        'fails, or exports another one; raise maxDiskMb to hold the best, the newest and one that is being written',
    ])
    assert.match(
      warningsIn(second.events).join(),
      `the quota cost the training that is published now its best checkpoint of that time, ${epoch}, in an earlier start`,
    )
  },
)

test('a checkpoint that is written under another name first, and closed, is there to be renamed', async () => {
  const trainer = `${HELPERS}
for (let n = 1; n <= 8; n++) {
  fs.writeFileSync(dir + '/new.tmp', Buffer.alloc(3 * mib, n))
  await sleep(150)
  fs.renameSync(dir + '/new.tmp', dir + '/' + n + '.checkpoint')
}
${publishes}`
  await using rig = await rigOf({ maxDiskMb: 20 }, trainer)

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 0, JSON.stringify(events.at(-1)))
  assert.equal(prunedIn(events).slice(0, 2), ['1.checkpoint', '2.checkpoint'])
})

inSweep(
  'staging folders of dead trainings go before anything else, and only when there must be room',
  async () => {
    const trainer = `${HELPERS}
const name = 'tmp-checkpoint-' + Date.now()
fs.mkdirSync(dir + '/' + name)
await write(name + '/model.bin', 8)
if (!fs.existsSync(dir + '/../../healthy')) process.kill(process.pid, 'SIGKILL')
fs.renameSync(dir + '/' + name, dir + '/checkpoint-1')
${publishes}`
    await using rig = await rigOf({ maxDiskMb: 20, prune: ['checkpoint-*'] }, trainer)

    for (const _ of [1, 2]) assert.is((await rig.run(['core'])).exitCode, 1)
    const leftovers = readdirSync(workDir(rig)).filter(name => name.startsWith('tmp-'))
    writeFileSync(rig.path('models/healthy'), '')
    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(leftovers.length, 2)
    assert.is(exitCode, 0)
    assert.ok(prunedIn(events).length > 0)
    assert.ok(prunedIn(events).every(name => leftovers.includes(name)))
  },
)

inSweep(
  'a quota full of files that no rule names is told with their pattern, and the line that would help',
  async () => {
    const trainer = `${HELPERS} for (let n = 0; n < 40; n++) await write('epoch=' + n + '.ckpt', 1)`
    await using rig = await rigOf({ maxDiskMb: 16 }, trainer)

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 2)
    const { message } = events.find(it => it.event === 'job.fail')!
    assert.match(message, /left are \d\d files epoch=\*\.ckpt \([\d.]+ MiB, no rule names them\)/)
    assert.match(message, /add "prune": \["epoch=\*\.ckpt"\] to the job in quotas\.json/)
  },
)

inSweep(
  'a retraining leaves alone links that have nothing to do with checkpoints, those of a cache, and a folder called latest',
  async () => {
    const trainer = `
console.log('links', ['data', 'last', 'cache/hub/model.bin', 'latest'].map(name => fs.lstatSync(dir + '/' + name, { throwIfNoEntry: false }) !== undefined).join())
fs.mkdirSync(dir + '/checkpoint-1', { recursive: true })
fs.writeFileSync(dir + '/checkpoint-1/model.pt', 'x')
fs.mkdirSync(dir + '/cache/hub', { recursive: true })
fs.mkdirSync(dir + '/latest', { recursive: true })
for (const [name, target] of [['data', '/usr'], ['last', 'checkpoint-1'], ['cache/hub/model.bin', 'blob']])
  if (!fs.lstatSync(dir + '/' + name, { throwIfNoEntry: false })) fs.symlinkSync(target, dir + '/' + name)
${publishes}`
    await using rig = await rigOf({}, trainer)
    await rig.run(['core'])

    await rig.run(['core', '--retrain'])

    assert.equal(linesOf(rig, 'links'), ['links false,false,false,false', 'links true,false,true,true'])
  },
)

/** Names that frameworks leave, by job: none is named in quotas.json for core. */
const LEFT = {
  core: [
    {},
    [
      ...['checkpoint.pth', 'model_epoch_3.pt', 'last.pt', 'weights.step-20.h5'],
      ...['best.pt', 'best-0.97.ckpt', 'model_best.pth.tar', 'best_model.bin'],
      'checkpoints/checkpoint_1/model.safetensors',
    ],
  ],
  dpi: [{ framework: 'lightning' }, ['last.ckpt', 'best.pt']],
  agent: [{ framework: 'keras' }, ['backup/latest.weights.h5', 'best.keras']],
} satisfies Record<JobName, [Parameters<typeof rigOf>[0], string[]]>

inSweep('a retraining begins anew, without a word of globs in quotas.json', async () => {
  const trainers = Object.entries(LEFT).map(([job, [quota, names]]) => {
    const trainer = `${HELPERS}
const names = ${JSON.stringify(names)}
console.log('finds', names.filter(has).join())
for (const name of ['backup', 'checkpoints/checkpoint_1']) fs.mkdirSync(dir + '/' + name, { recursive: true })
for (const name of names) fs.writeFileSync(dir + '/' + name, 'x')
${publishes}`
    return [job, { ...quota, trainer }] as const
  })
  await using rig = await trainerRig(Object.fromEntries(trainers))
  await rig.run()

  await rig.run(['--retrain'])

  for (const job of jobNames) assert.equal(linesOf(rig, 'finds', job), ['finds ', 'finds '])
})

inSweep(
  'a best model that keep names stays for a training that goes on, and not for the next one',
  async () => {
    const trainer = `
console.log('finds', has('best.keras'), has('other.keras'))
for (const name of ['best', 'other']) fs.writeFileSync(dir + '/' + name + '.keras', 'x')
if (!fs.existsSync(dir + '/../../healthy')) process.exit(1)`
    const quota = { models: ['*.keras'], framework: 'keras' } satisfies Parameters<typeof rigOf>[0]
    await using rig = await rigOf(quota, HELPERS + trainer)
    await rig.run(['core'])
    writeFileSync(rig.path('models/healthy'), '')

    const codes = [await rig.run(['core']), await rig.run(['core', '--retrain'])].map(it => it.exitCode)

    assert.equal(codes, [0, 0])
    assert.equal(linesOf(rig, 'finds'), ['finds false false', 'finds true false', 'finds false false'])
  },
)

const FINISHED: [string, Parameters<typeof rigOf>[0]][] = [
  ['checkpoints that a rule names', { prune: ['checkpoint-*'] }],
  ['a framework', { framework: 'huggingface' }],
  ['no word of them', {}],
  ['the glob keep', { prune: ['checkpoint-*'], keep: ['checkpoint-*'] }],
]
/** Goes on from the newest checkpoint to step 3; what it exports is what it has trained. */
const RESUMES = `
const steps = fs.readdirSync(dir).flatMap(name => /^checkpoint-(\\d+)$/.exec(name)?.[1] ?? []).map(Number)
const start = Math.max(0, ...steps)
console.log('resumed from', start)
if (fs.existsSync(dir + '/../../fails')) process.exit(1)
for (let step = start + 1; step <= 3; step++) {
  fs.mkdirSync(dir + '/checkpoint-' + step)
  fs.writeFileSync(dir + '/checkpoint-' + step + '/model.pt', 'x')
  if (fs.existsSync(dir + '/../../dies')) process.exit(1)
}
fs.symlinkSync('checkpoint-3', dir + '/last')
${publishes}`
for (const [what, quota] of FINISHED) {
  inSweep(`a retraining begins anew, whatever names the checkpoints of the last one: ${what}`, async () => {
    await using rig = await rigOf(quota, RESUMES)

    await rig.run(['core'])
    const dry = await rig.run(['core', '--retrain', '--dry-run', '--json'])
    const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])

    assert.is(exitCode, 0)
    assert.equal(linesOf(rig, 'resumed'), ['resumed from 0', 'resumed from 0'])
    const warnings = warningsIn(events)
    assert.match(warnings[0]!, /its last training has been published: 3 checkpoints of it are deleted,/)
    assert.not.match(warnings.join(), /which .* names/)
    assert.match(warningsIn(dry.events)[0]!, /published: 3 checkpoints of it would be deleted,/)
    assert.equal(prunedIn(dry.events), prunedIn(events))
  })
}

inSweep(
  'a retraining begins anew where the last one left more checkpoints than are listed at a time',
  async () => {
    const trainer = `
console.log('found', fs.readdirSync(dir).filter(name => name.startsWith('checkpoint-')).length)
for (let step = 1; step <= ${2 * MOST_ENTRIES + 100}; step++) fs.closeSync(fs.openSync(dir + '/checkpoint-' + step, 'w'))
${publishes}`
    await using rig = await rigOf({ prune: ['checkpoint-*'] }, trainer)

    await rig.run(['core'])
    const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])

    assert.is(exitCode, 0)
    assert.equal(linesOf(rig, 'found'), ['found 0', 'found 0'])
    assert.match(warningsIn(events)[0]!, /has been published: more than \d+ checkpoints of it are deleted/)
  },
)

inSweep('a retraining that makes the same bytes is told, and makes the model no younger', async () => {
  const trainer = `for (const name of ['a', 'b']) fs.writeFileSync(dir + '/' + name + '.pkl', 'x')\n${publishes}`
  await using rig = await rigOf({}, trainer)
  const trainedAt = () =>
    JSON.parse(readFileSync(rig.path('models/core/manifest.json'), 'utf8')).metadata.trained_at
  await rig.run(['core'])
  const first = trainedAt()

  const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])

  assert.is(exitCode, 0)
  assert.is(trainedAt(), first)
  assert.match(
    warningsIn(events).join(),
    /made the same bytes as are published already \(core\.onnx\), so their age stays.*; it found [ab]\.pkl and 1 more file of the last training, as prune does not name them/,
  )
})

for (const [what, ending, exitCode] of [
  ['has failed', 'process.exit(7)', 1],
  ['has been published', publishes, 0],
] as const) {
  inSweep(`that a training ${what} is told as that, where it cannot be noted for the next one`, async () => {
    const trainer = `fs.mkdirSync(dir + '/../../.trainer/core.attempts.json.tmp/x', { recursive: true })\n${ending}`
    await using rig = await rigOf({ maxDiskMb: 20, sandbox: 'off' }, trainer)

    const run = await rig.run(['core', '--json'])

    assert.is(run.exitCode, exitCode)
    const message = 'how this training came out cannot be noted for its next start'
    assert.ok(run.events.some(it => it.event === 'warning' && it.message.startsWith(message)))
    assert.is(
      run.events.some(it => it.event === 'model.publish'),
      exitCode === 0,
    )
  })
}

test('a training that was not published is resumed, after a published one too', async () => {
  await using rig = await rigOf({ prune: ['checkpoint-*'] }, RESUMES)
  await rig.run(['core'])
  writeFileSync(rig.path('models/dies'), '')
  await rig.run(['core', '--retrain'])
  const died = readdirSync(workDir(rig)).filter(name => name.startsWith('checkpoint-'))

  await rig.run(['core', '--retrain', '--json'])

  assert.equal(died, ['checkpoint-1'])
  assert.equal(linesOf(rig, 'resumed'), ['resumed from 0', 'resumed from 0', 'resumed from 1'])
})

inSweep('a job that says so goes on from the checkpoints of its published training', async () => {
  await using rig = await rigOf(
    { prune: ['checkpoint-*'], resume: 'always' },
    RESUMES.replace('fs.symlinkSync', '// '),
  )
  await rig.run(['core'])

  const { exitCode } = await rig.run(['core', '--retrain', '--json'])

  assert.is(exitCode, 0)
  assert.equal(linesOf(rig, 'resumed'), ['resumed from 0', 'resumed from 3'])
})

inSweep(
  'a newest checkpoint that two starts in a row failed on is set aside, kept, and goes first',
  async () => {
    const trainer = `
const steps = fs.readdirSync(dir).flatMap(name => /^checkpoint-(\\d+)$/.exec(name)?.[1] ?? []).map(Number)
const start = Math.max(0, ...steps)
console.log('resumed from', start)
if (start) fs.readFileSync(dir + '/checkpoint-' + start + '/trainer_state.json')
${publishes}`
    await using rig = await rigOf({ framework: 'huggingface' }, trainer)
    mkdirSync(join(workDir(rig), 'checkpoint-1'), { recursive: true })
    mkdirSync(join(workDir(rig), 'checkpoint-2'))
    writeFileSync(join(workDir(rig), 'checkpoint-1/trainer_state.json'), '{}')
    writeFileSync(join(workDir(rig), 'checkpoint-2/model.pt'), Buffer.alloc(MIB))

    for (const _ of [1, 2]) assert.is((await rig.run(['core'])).exitCode, 1)
    const dry = await rig.run(['core', '--dry-run', '--json'])
    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    assert.match(warningsIn(dry.events)[0]!, /checkpoint-2 \([\d.]+ MiB\), would be set aside/)
    assert.equal(linesOf(rig, 'resumed'), ['resumed from 2', 'resumed from 2', 'resumed from 1'])
    assert.match(
      warningsIn(events)[0]!,
      /failed 2 times in a row without a new checkpoint: its newest one, .*checkpoint-2 \([\d.]+ MiB\), is set aside in .*core\/aside/,
    )
    assert.not(existsSync(rig.path('models/core/aside')), 'a publication ends its use')
  },
)

inSweep('a checkpoint is not blamed by starts that left a new one, or could not begin', async () => {
  const trainer = `
const steps = fs.readdirSync(dir).flatMap(name => /^checkpoint-(\\d+)$/.exec(name)?.[1] ?? []).map(Number)
const start = Math.max(0, ...steps)
console.log('resumed from', start)
fs.mkdirSync(dir + '/checkpoint-' + (start + 1))
fs.writeFileSync(dir + '/checkpoint-' + (start + 1) + '/model.pt', 'x')
process.exit(1)`
  await using rig = await rigOf({ framework: 'huggingface' }, trainer)
  const quotas = JSON.parse(readFileSync(rig.path('quotas.json'), 'utf8'))
  const { train } = quotas.jobs.core
  const set = (words: string[]) => {
    quotas.jobs.core.train = words
    writeFileSync(rig.path('quotas.json'), JSON.stringify(quotas))
  }

  for (const _ of [1, 2, 3]) await rig.run(['core'])
  set(['/no/such/python', 'train.py'])
  const missing = []
  for (const _ of [1, 2, 3]) missing.push(await rig.run(['core', '--json']))
  const dry = await rig.run(['core', '--dry-run'])
  set(train)
  const { events } = await rig.run(['core', '--json'])

  assert.equal(
    linesOf(rig, 'resumed'),
    [0, 1, 2, 3].map(n => `resumed from ${n}`),
  )
  for (const it of missing) {
    assert.is(it.exitCode, 1)
    assert.match(
      it.stdout,
      'there is no program /no/such/python, which jobs.core.train of quotas.json names; install it',
    )
  }
  assert.is(dry.exitCode, 1)
  assert.not.match(warningsIn(events).join(), /set aside/)
})

inSweep('after a model that was refused the next training begins anew, and says why', async () => {
  const accept = { metrics: { recall: { min: 0.7 } } }
  const trainer = `fs.writeFileSync(dir + '/1.checkpoint', 'x')\n${publishes}`
  await using rig = await rigOf({ accept }, trainer)

  const refused = await rig.run(['core'])
  const { events } = await rig.run(['core', '--json'])

  assert.is(refused.exitCode, 4)
  assert.match(
    refused.stdout,
    /recall is not reported, at least 0\.7 is asked for; a figure is a number in performance_metrics of metadata\.json; nothing is published, and the new one is in \S+core\/candidate/,
  )
  assert.match(
    warningsIn(events)[0]!,
    /^its last training's model was not accepted: 1 checkpoint of it is|are deleted/,
  )
})

const NAMED: [string, string, string][] = [
  ['checkpoint', 'model_checkpoint_path: "checkpoint-2"\n', 'model_checkpoint_path: "checkpoint-1"\n'],
  ['latest', 'checkpoint-2', 'checkpoint-1'],
  ['latest_checkpointed_iteration.txt', '2', '1'],
]
for (const [pointer, two, one] of NAMED) {
  inSweep(
    `what names a checkpoint that is set aside names the one before, without a word in quotas.json: ${pointer}`,
    async () => {
      const folder = (n: number) => (pointer.endsWith('.txt') ? `iter_000000${n}` : `checkpoint-${n}`)
      const trainer = `
const named = fs.readFileSync(dir + '/${pointer}', 'utf8')
console.log('named', named.trim(), fs.readlinkSync(dir + '/best'))
if (named.includes('2')) {
  fs.writeFileSync(dir + '/${folder(2)}/log', String(Date.now()))
  process.exit(1)
}
${publishes}`
      await using rig = await rigOf({}, trainer)
      for (const n of [1, 2]) mkdirSync(join(workDir(rig), folder(n)), { recursive: true })
      for (const n of [1, 2]) writeFileSync(join(workDir(rig), folder(n), 'model.pt'), 'x')
      writeFileSync(join(workDir(rig), pointer), two)
      symlinkSync(`./${folder(2)}`, join(workDir(rig), 'best'))

      for (const _ of [1, 2]) assert.is((await rig.run(['core'])).exitCode, 1)
      await rig.run(['core', '--json'])

      const [first, , third] = linesOf(rig, 'named')
      assert.is(first, `named ${two.trim()} ./${folder(2)}`)
      assert.is(third, `named ${one.trim()} ./${folder(1)}`)
    },
  )
}

inSweep('a start that was interrupted is no failed one', async () => {
  const trainer = `
if (fs.existsSync(dir + '/../../hangs')) { console.log('hangs'); await sleep(60_000) }
console.log('resumed', fs.readdirSync(dir).includes('checkpoint-1'))
process.exit(1)`
  await using rig = await rigOf({ prune: ['checkpoint-*'] }, trainer)
  mkdirSync(join(workDir(rig), 'checkpoint-1'), { recursive: true })
  writeFileSync(join(workDir(rig), 'checkpoint-1/model.pt'), 'x')
  await rig.run(['core'])
  writeFileSync(rig.path('models/hangs'), '')
  const hanging = rig.start(['core', '--json'])
  await until('it trains', () => hanging.output().includes('train.start'))
  process.kill(hanging.pid, 'SIGTERM')
  assert.is((await hanging.ended).exitCode, 143)
  rmSync(rig.path('models/hangs'))

  await rig.run(['core'])

  assert.equal(linesOf(rig, 'resumed'), ['resumed true', 'resumed true'])
})

inSweep(
  'caches go before checkpoints, but not while they are in use, nor when they hold nothing',
  async () => {
    const trainer = `${HELPERS}
fs.mkdirSync(dir + '/cache/old', { recursive: true })
fs.mkdirSync(dir + '/cache/used', { recursive: true })
fs.mkdirSync(dir + '/cache/empty')
await write('cache/old/weights', 3)
await write('cache/used/weights', 3)
const fd = fs.openSync(dir + '/cache/used/weights')
await write('epoch-1.checkpoint', 3)
await write('log.bin', 8)
console.log('left', has('cache/old'), has('cache/used/weights'), has('cache/empty'), has('epoch-1.checkpoint'))
${publishes}`
    await using rig = await rigOf({ maxDiskMb: 16 }, trainer)

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    assert.equal(linesOf(rig, 'left'), ['left false true true true'])
    assert.equal(
      events.flatMap(it => (it.event === 'storage.prune' ? [it.rule] : [])),
      ['work/cache'],
    )
  },
)

inSweep('a time in the future is told in a warning', async () => {
  const trainer = `
fs.writeFileSync(dir + '/a.checkpoint', 'x')
fs.utimesSync(dir + '/a.checkpoint', 5e9, 5e9)
process.exit(1)`
  await using rig = await rigOf({}, trainer)
  await rig.run(['core'])

  const { events } = await rig.run(['core', '--json'])

  assert.match(
    warningsIn(events)[0]!,
    /a\.checkpoint has a modification time in the future; the time of its last change counts instead/,
  )
})

function rigOf(
  quota: NonNullable<NonNullable<Parameters<typeof trainerRig>[0]>['core']>,
  trainer: string,
): Promise<Rig> {
  return trainerRig({ core: { ...quota, trainer } })
}

function workDir(rig: Rig): string {
  return rig.path('models/core/work')
}

/** The lines of all trainings of a job that begin with a word. */
function linesOf(rig: Rig, word: string, job: JobName = 'core'): string[] {
  const log = readFileSync(rig.path(`models/.trainer/${job}.log`), 'utf8')
  return log.split('\n').filter(line => line.startsWith(word))
}

function prunedIn(events: TrainerEvent[]): string[] {
  return events.flatMap(it => (it.event === 'storage.prune' ? [basename(it.path)] : []))
}

function warningsIn(events: TrainerEvent[]): string[] {
  return events.flatMap(it => (it.event === 'warning' ? [it.message] : []))
}

test.run()
