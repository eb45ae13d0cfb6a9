import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname } from 'node:path'
import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import { jobNames } from '../../lib/quotas.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { root } from '../support/places.ts'
import { type Ended, publishes, type Rig, survivors, trainerRig, untilEvent } from '../support/rig.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const namesOf = (events: TrainerEvent[]) =>
  events.map(it => ('job' in it ? `${it.event} ${it.job}` : it.event))
const model = (rig: Rig, job: string) => rig.path('models', job, `${job}.onnx`)

/** A rig whose three jobs one run has trained: for tests that leave it so. */
let trained: Promise<{ rig: Rig; ended: Ended }> | undefined
const trainedRig = () => (trained ??= trainAll())
test.after(async () => (await trained)?.rig[Symbol.asyncDispose]())

async function trainAll(): Promise<{ rig: Rig; ended: Ended }> {
  const rig = await trainerRig({ core: { train: ['node', 'core.mjs'] } })
  return { rig, ended: await rig.run(['--json']) }
}

test('acceptance: quota enforcement: a training that leaves 4 GB of checkpoints has the oldest deleted', async () => {
  const trainer = `${publishes}
for (const n of [1, 2]) { fs.writeFileSync(dir + '/' + n + '.checkpoint', ''); fs.truncateSync(dir + '/' + n + '.checkpoint', 2 * 2 ** 30) }`
  await using rig = await trainerRig({ core: { maxDiskMb: 3072, trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 0)
  assert.equal(
    events.flatMap(it => (it.event === 'storage.prune' ? [[basename(it.path), it.bytes]] : [])),
    [['1.checkpoint', 2 * 2 ** 30]],
  )
  assert.not(existsSync(rig.path('models', 'core', 'work', '1.checkpoint')))
})

test('acceptance: quota enforcement: a 4 GB checkpoint of an earlier run is deleted before the training', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 3072 } })
  const file = rig.path('models', 'core', 'work', 'huge.checkpoint')
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, '')
  truncateSync(file, 4 * 2 ** 30)

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 0)
  const order = namesOf(events).filter(it => it === 'storage.prune core' || it === 'train.start core')
  assert.equal(order, ['storage.prune core', 'train.start core'])
  assert.not(existsSync(file))
})

test('acceptance: quota enforcement: 4 GB of models are a logged violation, and are not published', async () => {
  const trainer = `${publishes}
for (const n of [1, 2]) { fs.writeFileSync(dir + '/weights' + n, ''); fs.truncateSync(dir + '/weights' + n, 2 * 2 ** 30) }`
  await using rig = await trainerRig({ core: { maxDiskMb: 3072, trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 2)
  const [exceeded] = events.filter(it => it.event === 'quota.exceeded')
  assert.is(exceeded?.level, 'critical')
  assert.match(exceeded!.message, 'Model too large for quota')
  assert.not(existsSync(model(rig, 'core')))
})

test('acceptance: quota enforcement: an ordinary write of a 4 GB file is stopped at the quota', async () => {
  const trainer = `${publishes}; fs.truncateSync(dir + '/core.onnx', 4 * 2 ** 30)`
  await using rig = await trainerRig({ core: { maxDiskMb: 3072, trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 2)
  assert.ok(
    events.some(it => it.event === 'quota.exceeded' && it.message.includes('Model too large for quota')),
  )
})

test('acceptance: the agent training is given 200 MB and held to them', async () => {
  const trainer = `fs.writeFileSync(dir + '/args.json', JSON.stringify(process.argv.slice(2))); ${publishes}
for (let n = 0; n < 22; n++) { fs.writeFileSync(dir + '/epoch-' + n + '.checkpoint', Buffer.alloc(10 * 2 ** 20)); await sleep(20) }`
  await using rig = await trainerRig({ agent: { maxDiskMb: 200, trainer } })

  const { exitCode, events } = await rig.run(['agent', '--json'])

  assert.is(exitCode, 0)
  const args = JSON.parse(readFileSync(rig.path('models', 'agent', 'work', 'args.json'), 'utf8'))
  assert.equal(args, ['--max-disk-mb', '200', '--output-dir', rig.path('models', 'agent', 'work')])
  const usages = events.filter(it => it.event === 'storage.usage')
  assert.ok(
    usages.every(({ usedBytes, limitBytes }) => limitBytes === 200 * 2 ** 20 && usedBytes <= limitBytes),
  )
  assert.ok(events.some(it => it.event === 'storage.prune'))
})

test('acceptance: sequential execution: each training starts after the one before it exited with 0', async () => {
  const { exitCode, events } = (await trainedRig()).ended

  assert.is(exitCode, 0)
  const trainings = namesOf(events.filter(it => it.event === 'train.start' || it.event === 'train.exit'))
  assert.equal(
    trainings,
    jobNames.flatMap(job => [`train.start ${job}`, `train.exit ${job}`]),
  )
  assert.ok(events.filter(it => it.event === 'train.exit').every(it => it.exitCode === 0))
})

test('a run checks day 1, trains the three jobs, publishes and says so, each event once, in the journal too', async () => {
  const { rig, ended } = await trainedRig()
  const { events } = ended

  const steps = [
    'job.start',
    'storage.usage',
    'train.start',
    'train.exit',
    'storage.usage',
    'model.publish',
    'job.done',
  ]
  // A training may stand still for what others write to the same disk.
  const isByChance = (it: TrainerEvent) =>
    /^train\.(freeze|resume)$/.test(it.event) || (it.event === 'storage.usage' && it.phase === 'training')
  assert.equal(namesOf(events.filter(it => !isByChance(it))), [
    'run.start',
    ...jobNames.map(job => `day1.check ${job}`),
    ...jobNames.flatMap(job => steps.map(step => `${step} ${job}`)),
    'run.done',
  ])
  assert.equal(
    rig.events().filter(it => it.run === events[0]!.run),
    events,
  )
  assert.ok(events.every(it => it.run === events[0]!.run && new Date(it.time).toISOString() === it.time))
})

test('a published model is the one that was trained, described by its manifest, readable by its group only', async () => {
  const trainer = `${publishes}\nfs.writeFileSync(dir + '/metadata.json', JSON.stringify({ performance_metrics: { recall: 0.9 } }))`
  await using rig = await trainerRig({ core: { trainer } })

  const { events } = await rig.run(['core', '--json'])

  assert.equal(readFileSync(model(rig, 'core')), onnxModel())
  const [published] = events.filter(it => it.event === 'model.publish')
  const manifest = JSON.parse(readFileSync(rig.path('models', 'core', 'manifest.json'), 'utf8'))
  assert.equal(manifest.files, { 'core.onnx': published!.sha256 })
  assert.equal(manifest.metadata.performance_metrics, { recall: 0.9 })
  assert.equal(published!.metrics, { recall: 0.9 })
  assert.is(statSync(rig.modelsDir).mode & 0o777, 0o750)
})

test('a second run finds valid models and trains nothing; --retrain trains again', async () => {
  const { rig } = await trainedRig()

  const second = await rig.run(['--json'])
  const third = await rig.run(['--json', '--retrain', 'dpi'])

  assert.is(second.exitCode, 0)
  assert.equal(namesOf(second.events.slice(-4)), [
    'job.skip core',
    'job.skip dpi',
    'job.skip agent',
    'run.done',
  ])
  assert.equal(namesOf(third.events.filter(it => it.event === 'train.start')), ['train.start dpi'])
})

for (const [what, spoil] of [
  ['zero-byte', (file: string) => truncateSync(file, 0)],
  ['truncated', (file: string) => truncateSync(file, statSync(file).size - 5)],
  ['garbage', (file: string) => writeFileSync(file, 'not a model at all')],
] as const) {
  // Which files are no models has tests of its own.
  const testHere = what === 'truncated' ? test : inSweep
  testHere(`day 1 trains a job anew whose model is ${what}, and only that one`, async () => {
    const { rig } = await trainedRig()
    spoil(model(rig, 'dpi'))

    const { exitCode, events } = await rig.run(['--json'])

    assert.is(exitCode, 0)
    assert.equal(namesOf(events.filter(it => it.event === 'train.start')), ['train.start dpi'])
    assert.equal(readFileSync(model(rig, 'dpi')), onnxModel())
    // They are the same bytes again, but what they repair is no reason to doubt the training.
    assert.equal(
      events.filter(it => it.event === 'warning'),
      [],
    )
  })
}

inSweep("an operator's own valid model is kept, and taken into the manifest", async () => {
  await using rig = await trainerRig()
  await rig.run(['core'])
  writeFileSync(model(rig, 'core'), onnxModel({ producer: 'operator' }))

  const { events } = await rig.run(['core', '--json'])
  const again = await rig.run(['core', '--json'])
  rmSync(rig.path('models/core/current/manifest.json'))
  const unlisted = await rig.run(['core', '--json'])

  const isWarned = (it: TrainerEvent) =>
    it.event === 'warning' && it.message.includes('core.onnx is valid but')
  assert.ok(events.some(isWarned) && unlisted.events.some(isWarned))
  assert.equal(namesOf(events.slice(-2)), ['job.skip core', 'run.done'])
  assert.equal(readFileSync(model(rig, 'core')), onnxModel({ producer: 'operator' }))
  assert.not(again.events.some(it => it.event === 'warning'))
})

test("dpi's training never starts when core's exits non-zero; the reason names its last line and log", async () => {
  await using rig = await trainerRig({
    core: { trainer: `console.log('out of\\x1b[31m luck'); process.exitCode = 7` },
  })

  const { exitCode, events } = await rig.run(['--json'])

  assert.is(exitCode, 1)
  assert.equal(namesOf(events.filter(it => it.event === 'train.start')), ['train.start core'])
  const [fail] = events.filter(it => it.event === 'job.fail')
  assert.match(fail!.message, /exit code 7.*"out of luck".*core\.log/)
  assert.not(existsSync(rig.path('models', 'dpi', 'work')))
})

for (const [shared, what, trainer, said] of [
  [test, 'an uncaught error', `throw new TypeError('no data')`, /its error was "TypeError: no data",/],
  [
    inSweep,
    'an uncaught error with properties',
    `await fs.promises.readFile('/no/data')`,
    /its error was "Error: ENOENT: no such file or directory, open '\/no\/data'",/,
  ],
  [
    inSweep,
    'an error without frames, as Node.js 20.11 has them',
    `console.error("[Error: no data] {\\n  errno: -2\\n}\\n\\nNode.js v20.11.0"); process.exit(1)`,
    /its error was "Error: no data",/,
  ],
  [
    inSweep,
    'an assertion',
    `;(await import('node:assert')).ok(0, 'no data')`,
    /its error was "AssertionError \[ERR_ASSERTION\]: no data",/,
  ],
  [
    inSweep,
    'something after an error',
    `console.error(new Error('first try')); console.log('giving up'); process.exit(1)`,
    /its last line was "giving up",/,
  ],
] as const) {
  shared(`the reason of a training that ends with ${what} is what tells most`, async () => {
    await using rig = await trainerRig({ core: { trainer } })

    const { events } = await rig.run(['core', '--json'])

    const [fail] = events.filter(it => it.event === 'job.fail')
    assert.match(fail!.message, said)
    const output = events.flatMap(it => (it.event === 'train.output' ? [it.line] : []))
    assert.match(output.at(-1)!, /^(Node\.js v\d+.*|giving up)$/)
  })
}

for (const [what, trainer, reason] of [
  ['nothing', '', /nothing in .*work matches \*\.onnx/],
  ['an empty model', `fs.writeFileSync(dir + '/core.onnx', '')`, /core\.onnx is empty/],
  ['a link to a model', `fs.symlinkSync(fixture, dir + '/core.onnx')`, /symbolic link/],
  ['a model with a second name', `${publishes}; fs.linkSync(dir + '/core.onnx', dir + '/twin')`, /hard link/],
  ['a FIFO', `spawnSync('mkfifo', [dir + '/core.onnx'])`, /FIFO/],
  ['a folder', `fs.mkdirSync(dir + '/core.onnx')`, /folder/],
] as const) {
  const testHere = what.startsWith('nothing') ? test : inSweep
  testHere(
    `a training that exits with 0 and leaves ${what} has failed, and what was published stays`,
    async () => {
      const { rig } = await trainedRig()
      const text = readFileSync(rig.path('core.mjs'), 'utf8')
      writeFileSync(rig.path('core.mjs'), text.replace(publishes, trainer))

      const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])

      writeFileSync(rig.path('core.mjs'), text)
      assert.is(exitCode, 1)
      const [fail] = events.filter(it => it.event === 'job.fail')
      assert.match(fail!.message, reason)
      assert.equal(readFileSync(model(rig, 'core')), onnxModel())
    },
  )
}

inSweep(
  'a model that an earlier, failed training has left is not published by one that leaves none',
  async () => {
    const trainer = `if (fs.existsSync(dir + '/second')) process.exit(0)\nfs.writeFileSync(dir + '/second', ''); ${publishes}; process.exit(1)`
    await using rig = await trainerRig({ core: { trainer } })

    const first = await rig.run(['core'])
    const second = await rig.run(['core'])

    assert.equal([first.exitCode, second.exitCode], [1, 1])
    assert.not(existsSync(model(rig, 'core')))
  },
)

test('--dry-run tells what would be done and changes nothing, not even the models folder', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 1 } })
  const fresh = await rig.run(['--dry-run', '--json'])
  const isUntouched = !existsSync(rig.modelsDir)
  await rig.run(['core'])
  writeFileSync(rig.path('models', 'core', 'work', 'old.checkpoint'), Buffer.alloc(2 ** 21))
  const journal = rig.events().length

  const later = await rig.run(['--dry-run', '--json', '--retrain', 'core'])

  assert.equal([fresh.exitCode, later.exitCode], [0, 0])
  assert.ok(isUntouched)
  assert.equal(namesOf(fresh.events.filter(it => it.event === 'job.start')).length, 3)
  assert.ok(
    later.events.some(it => it.event === 'storage.prune' && it.dryRun && it.path.endsWith('old.checkpoint')),
  )
  assert.ok(lstatSync(rig.path('models', 'core', 'work', 'old.checkpoint')).isFile())
  assert.is(rig.events().length, journal)
})

inSweep('--dry-run refuses a disk that is too small as a run does, without a models folder too', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 2 ** 30, minFreeMb: 2 ** 30 - 1 } })

  const dry = await rig.run(['--dry-run', 'core'])
  const isUntouched = !existsSync(rig.modelsDir)
  const real = await rig.run(['core'])

  assert.ok(isUntouched)
  for (const { exitCode, stdout } of [dry, real]) {
    assert.is(exitCode, 3)
    assert.match(stdout, /Cannot start core: .* MiB free on .*core, .* MiB needed/)
  }
})

test("a job's own script trains that job alone, within --max-disk-mb", async () => {
  await using rig = await trainerRig()

  const { exitCode, events } = await rig.run(['--json', '--max-disk-mb', '7'], { script: 'scripts/dpi.ts' })

  assert.is(exitCode, 0)
  assert.equal(namesOf(events.filter(it => it.event === 'day1.check')), ['day1.check dpi'])
  const [start] = events.filter(it => it.event === 'job.start')
  assert.is(start!.limitBytes, 7 * 2 ** 20)
  assert.ok(existsSync(model(rig, 'dpi')))
})

test('scripts/day1.ts says which jobs have no valid model, and trains none', async () => {
  await using rig = await trainerRig()
  await rig.run(['dpi'])

  const { exitCode, events } = await rig.run(['--json'], { script: 'scripts/day1.ts' })

  assert.is(exitCode, 0)
  assert.equal(
    events.flatMap(it => (it.event === 'day1.check' ? [it.missing] : [])),
    [true, false, true],
  )
  assert.not(events.some(it => it.event === 'train.start'))
})

for (const [args, named] of [
  [['--retrian'], '--retrain'],
  [['cor'], 'core'],
  [['--models-dir'], '--models-dir'],
  [['--models-dir', ''], '--models-dir'],
  [['--every', 'daily'], '--every'],
  [['--every', '24h', '--dry-run'], '--dry-run'],
] as const) {
  test(`wrong usage, ${args.join(' ')}, ends with 64 and one line that names ${named}`, async () => {
    await using rig = await trainerRig()

    const { exitCode, stdout, stderr } = await rig.run([...args])

    assert.is(exitCode, 64)
    assert.is(stdout, '')
    assert.ok(stderr.includes(named) && stderr.split('\n').length === 2, stderr)
    assert.not(existsSync(rig.modelsDir))
  })
}

inSweep('npm start refuses the options that npm has kept for itself', async () => {
  await using rig = await trainerRig()
  const words = ['--', '--quotas', rig.path('quotas.json'), '--models-dir', rig.modelsDir]

  const start = (...args: string[]) => spawnSync('npm', ['start', ...args], { cwd: root, encoding: 'utf8' })
  const [before, after] = [start('--dry-run', 'core', ...words), start('core', ...words, '--dry-run')]

  assert.is(before.status, 64)
  assert.match(before.stderr, /npm start -- --dry-run$/m)
  assert.is(after.status, 0)
})

inSweep('SIGTERM to npm start ends the run and its training', async () => {
  await using rig = await trainerRig({ core: { trainer: 'await sleep(60_000)' } })
  const words = ['start', '--', 'core', '--quotas', rig.path('quotas.json'), '--models-dir', rig.modelsDir]
  const npm = spawn('npm', words, { cwd: root, stdio: 'ignore' })
  const ended = once(npm, 'exit')
  await untilEvent(rig, 'train.start')

  npm.kill('SIGTERM')
  await ended

  const { exitCode } = await untilEvent(rig, 'run.done')
  assert.is(exitCode, 143)
  await until('nothing is left of it', () => !survivors(rig).length)
})

inSweep(
  'where models are kept: the option, else the environment, else quotas.json, else the state folder',
  async () => {
    await using box = await sandbox()
    await using rig = await trainerRig({}, { modelsDir: 'from-quotas' })
    const folderOf = async (args: string[], env: Record<string, string>) => {
      const { events } = await rig.run(['--dry-run', '--json', ...args], { env, withModelsDir: false })
      return events.flatMap(it => (it.event === 'run.start' ? [it.modelsDir] : []))[0]
    }

    const found = [
      await folderOf(['--models-dir', box.path('option')], { RANSOMEYE_MODELS_DIR: box.path('env') }),
      await folderOf([], { RANSOMEYE_MODELS_DIR: box.path('env') }),
      await folderOf([], { RANSOMEYE_MODELS_DIR: '' }),
    ]

    assert.equal(found, [box.path('option'), box.path('env'), rig.path('from-quotas')])
  },
)

inSweep(
  'a models folder of the environment that overrules quotas.json is told, and nothing else is',
  async () => {
    await using box = await sandbox()
    await using rig = await trainerRig({}, { modelsDir: 'from-quotas' })
    const warned = async (args: string[], place: string) => {
      const env = { RANSOMEYE_MODELS_DIR: place }
      const { events } = await rig.run(['--dry-run', '--json', ...args], { env, withModelsDir: false })
      return events
        .flatMap(it => (it.event === 'warning' ? [it.message] : []))
        .filter(it => /modelsDir/.test(it))
    }

    const [overruled, ...others] = [
      await warned([], box.path('env')),
      await warned([], rig.path('from-quotas')),
      await warned(['--models-dir', box.path('option')], box.path('env')),
    ]

    assert.match(
      overruled!.join(),
      /^modelsDir in quotas.json is \S+from-quotas, and has no effect because RANSOMEYE_MODELS_DIR is set/,
    )
    assert.equal(others, [[], []])
  },
)

test.run()
