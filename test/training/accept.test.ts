import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import { checkUsage } from '../../lib/storage.ts'
import { readProc } from '../../lib/system/processes.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { mountSmallDisk } from '../support/own-disk.ts'
import { type Rig, survivors, trainerRig } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'

/** A training that copies what `tell()` has laid ready, by a shell, which starts in a thirtieth of the time of Node.js. */
const telling = {
  train: ['sh', '-c', 'cp told/metadata.json told/core.onnx "$RANSOMEYE_OUTPUT_DIR"'],
}

const canSandbox = spawnSync('bwrap', ['--ro-bind', '/', '/', '--unshare-net', 'true']).status === 0

function tell(rig: Rig, figures: Record<string, unknown>, more = {}): void {
  const model = readFileSync(rig.path('fixture.onnx'))
  model.write(String(figures.letters ?? 'test'), model.indexOf('test'))
  mkdirSync(rig.path('told'), { recursive: true })
  writeFileSync(rig.path('told/core.onnx'), model)
  writeFileSync(rig.path('told/metadata.json'), JSON.stringify({ performance_metrics: figures, ...more }))
}

const refusalIn = (events: TrainerEvent[]) =>
  events.find((it): it is Extract<TrainerEvent, { event: 'model.refuse' }> => it.event === 'model.refuse')
const current = (rig: Rig) => readlinkSync(join(rig.modelsDir, 'core/current'))

test('a model is accepted by its figures: least ones at once, drops against the current model', async () => {
  const accept = { metrics: { recall: { min: 0.7 }, auc: { maxDrop: 0.02 } } }
  await using rig = await trainerRig({ core: { ...telling, accept } })
  const train = async (figures: object) => {
    tell(rig, { ...figures })
    const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])
    return { exitCode, refusal: refusalIn(events) }
  }

  const tooFew = await train({ recall: 0.69, auc: 0.9 })
  const first = await train({ recall: 0.7, auc: 0.9, letters: 'aaaa' })
  const slightly = await train({ recall: 0.8, auc: 0.89, letters: 'bbbb' })
  const worse = await train({ recall: 0.8, auc: 0.86, letters: 'cccc' })
  const silent = await train({ auc: 0.9 })

  assert.equal(
    [tooFew, first, slightly, worse, silent].map(it => it.exitCode),
    [4, 0, 0, 4, 4],
  )
  assert.equal(tooFew.refusal?.metrics, { recall: { figure: 0.69, limit: 0.7 } })
  assert.is(tooFew.refusal?.reason, 'recall is 0.69, at least 0.7 is asked for')
  assert.equal(worse.refusal?.metrics.auc, { figure: 0.86, limit: 0.87 })
  assert.match(silent.refusal?.reason ?? '', /^recall is not reported, at least 0\.7 is asked for/)
  assert.is(current(rig), 'generations/2')
  assert.ok(existsSync(join(rig.modelsDir, 'core/candidate/core.onnx')))
})

inSweep(
  'a refused model keeps no other job from its training, and is told by status and metrics',
  async () => {
    const accept = { metrics: { recall: { min: 0.7 } } }
    await using rig = await trainerRig({ core: { ...telling, accept } })
    tell(rig, { recall: 0.5 })

    const { exitCode, events } = await rig.run(['--json'])
    const status = await rig.run(['--json'], { script: 'scripts/status.ts' })
    const metrics = readFileSync(join(rig.modelsDir, '.trainer/metrics.prom'), 'utf8')

    const published = events.flatMap(it => (it.event === 'model.publish' ? it.job : []))
    const [core] = JSON.parse(status.stdout).jobs
    assert.equal([exitCode, published], [4, ['dpi', 'agent']])
    assert.equal([core.lastResult.outcome, core.valid], ['refused', false])
    assert.match(core.lastResult.reason, /recall is 0\.5, at least 0\.7 is asked for/)
    assert.match(metrics, /^ransomeye_trainer_model_refused\{model="core"\} 1$/m)
    assert.match(metrics, /^ransomeye_trainer_model_refused\{model="dpi"\} 0$/m)
  },
)

skipUnless(
  test,
  canSandbox,
  'needs bubblewrap',
)('a command accepts by its exit code, sees both models and no network, and cannot change them', async () => {
  const script = `
      import fs from 'node:fs'
      import os from 'node:os'
      const [candidate, model] = process.argv.slice(2)
      console.log(fs.existsSync(candidate + '/core.onnx'), fs.existsSync(model + '/core.onnx'))
      console.log(Object.keys(os.networkInterfaces()).filter(it => it !== 'lo').length)
      try { fs.writeFileSync(candidate + '/core.onnx', '') } catch (error) { console.log(error.code) }
      process.exit(fs.readFileSync(candidate + '/core.onnx').includes('bad!') ? 3 : 0)`
  const command = ['node', 'judge.mjs', '{candidateDir}', '{modelDir}']
  await using rig = await trainerRig({ core: { ...telling, accept: { metrics: {}, command } } })
  writeFileSync(rig.path('judge.mjs'), script)
  const train = async (letters: string) => {
    tell(rig, { letters })
    return rig.run(['core', '--retrain', '--json'])
  }

  const good = await train('good')
  const bad = await train('bad!')

  const log = readFileSync(join(rig.modelsDir, '.trainer/core.log'), 'utf8')
  assert.equal([good.exitCode, bad.exitCode], [0, 4])
  assert.match(log, 'true false\n0\nEROFS\n')
  assert.match(log, 'true true\n0\nEROFS\n')
  assert.match(
    refusalIn(bad.events)?.reason ?? '',
    /^accept's command ended with exit code 3; its last line was/,
  )
  assert.is(current(rig), 'generations/1')
})

for (const [what, body, reason] of [
  ['hangs', 'setInterval(() => {}, 1000)', /^accept's command took longer than 0\.05 min$/],
  [
    'takes more room than there is',
    `for (let n = 0; ; n++) { fs.writeFileSync(process.env.TMPDIR + '/' + n, Buffer.alloc(2 ** 20)); await new Promise(it => setTimeout(it, 20)) }`,
    /^accept's command was ended because it took too much room: Model too large for quota/,
  ],
  [
    'is not there',
    undefined,
    /^accept's command ended with exit code 127; its last line was .*no-such-program/,
  ],
] as const) {
  skipUnless(
    inSweep,
    canSandbox,
    'needs bubblewrap',
  )(`a command that ${what} does not accept`, async () => {
    const command = body === undefined ? ['no-such-program'] : ['node', 'judge.mjs']
    await using rig = await trainerRig({
      core: { ...telling, accept: { command }, ...(what === 'hangs' && { timeoutMinutes: 0.05 }) },
    })
    writeFileSync(rig.path('judge.mjs'), `import fs from 'node:fs'\n${body ?? ''}`)
    tell(rig, {})

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 4)
    assert.match(refusalIn(events)?.reason ?? '', reason)
    const told = events.some(it => it.event === 'warning' && it.message.startsWith('there is no program'))
    assert.is(told, body === undefined, 'before the training')
    assert.equal(readdirSync(join(rig.modelsDir, 'core')).sort(), ['candidate', 'generations', 'work'])
    assert.equal(survivors(rig), [])
  })
}

skipUnless(
  inSweep,
  canSandbox,
  'needs bubblewrap',
)('a command that is late is held inside the quota also in its grace', async () => {
  const command = ['node', 'judge.mjs']
  await using rig = await trainerRig({
    core: { ...telling, maxDiskMb: 20, graceSeconds: 5, timeoutMinutes: 0.05, accept: { command } },
  })
  const judge = `
import fs from 'node:fs'
process.on('SIGTERM', async () => {
  for (let n = 1; ; n++) {
    fs.writeFileSync(process.env.TMPDIR + '/' + n, Buffer.alloc(2 ** 20))
    console.log('written', n)
    await new Promise(it => setTimeout(it, 20))
  }
})
setInterval(() => {}, 1000)`
  writeFileSync(rig.path('judge.mjs'), judge)
  tell(rig, {})

  const { exitCode, events } = await rig.run(['core', '--json'])

  const log = readFileSync(join(rig.modelsDir, '.trainer/core.log'), 'utf8')
  const written = Number(
    log
      .match(/written \d+/g)
      ?.at(-1)
      ?.split(' ')[1],
  )
  assert.is(exitCode, 4)
  assert.match(refusalIn(events)?.reason ?? '', /took longer than 0\.05 min$/)
  // In five seconds it would have written about 200.
  assert.ok(written > 5 && written <= 22, `${written} MiB`)
})

skipUnless(
  inSweep,
  canSandbox,
  'needs bubblewrap',
)('what a command leaves running is ended, and a signal during it publishes nothing', async () => {
  const command = ['node', 'judge.mjs']
  await using rig = await trainerRig({ core: { ...telling, accept: { command } } })
  const detached = `{ detached: true, stdio: 'ignore' }`
  const judge = `import { spawn } from 'node:child_process'\nspawn('sleep', ['1000'], ${detached}).unref()`
  writeFileSync(rig.path('judge.mjs'), `${judge}\nsetInterval(() => {}, 1000)`)
  tell(rig, {})
  const run = rig.start(['core', '--json'])
  await until('the command runs', () =>
    survivors(rig).some(pid => readProc(`${pid}/cmdline`)?.includes('judge.mjs')),
  )
  run.child.kill('SIGTERM')
  const interrupted = await run.ended
  const left = [survivors(rig), readdirSync(join(rig.modelsDir, 'core/generations'))]
  writeFileSync(rig.path('judge.mjs'), judge)
  const accepted = await rig.run(['core', '--json'])

  assert.equal([interrupted.exitCode, ...left], [143, [], []])
  assert.equal([accepted.exitCode, current(rig), survivors(rig)], [0, 'generations/1', []])
})

skipUnless(
  inSweep,
  canSandbox,
  'needs bubblewrap',
)('Ctrl-Z stops neither the run nor the command that accepts', async () => {
  await using rig = await trainerRig({ core: { ...telling, accept: { command: ['sleep', '2'] } } })
  tell(rig, {})
  const run = rig.start(['core', '--json'])
  await until('the command runs', () =>
    survivors(rig).some(pid => readProc(`${pid}/cmdline`)?.startsWith('sleep\0')),
  )

  run.child.kill('SIGTSTP')
  const { exitCode, events } = await run.ended

  assert.is(exitCode, 0)
  const message = "Ctrl-Z) has no effect: accept's command would go on unwatched"
  assert.ok(events.some(it => it.event === 'warning' && it.message.includes(message)))
})

skipUnless(
  inSweep,
  canSandbox && process.getuid?.() === 0,
  'needs bubblewrap and root',
)(
  'others who fill the disk while the command runs refuse no model: 3, and its next start trains again',
  async () => {
    const command = ['sh', '-c', 'touch "$RANSOMEYE_OUTPUT_DIR"/ready; sleep 60']
    await using rig = await trainerRig({ core: { ...telling, accept: { command } } })
    using _disk = mountSmallDisk(rig, 300)
    tell(rig, {})
    const run = rig.start(['core', '--json'])
    await until('the command runs', () => existsSync(join(rig.modelsDir, 'core/work/ready')))

    spawnSync('dd', ['if=/dev/zero', `of=${join(rig.modelsDir, 'capture.pcap')}`, 'bs=1M', 'status=none'])
    const { exitCode, events } = await run.ended

    assert.is(exitCode, 3)
    assert.is(refusalIn(events), undefined)
    const fail = events.find(it => it.event === 'job.fail')
    assert.match(
      fail?.event === 'job.fail' ? fail.message : '',
      /^Stopped core: other programs fill the disk/,
    )
  },
)

for (const [what, interrupts, exitCodes] of [
  ['accepts', false, [0, 0]],
  ['refuses', false, [1, 4]],
  ['is ended in its grace', true, [0, 143]],
] as const) {
  skipUnless(
    inSweep,
    canSandbox,
    'needs bubblewrap',
  )(`what a command that ${what} has written in a burst does not stay above the quota`, async () => {
    const [judgeCode, exitCode] = exitCodes
    const command = ['node', 'judge.mjs']
    await using rig = await trainerRig({ core: { ...telling, maxDiskMb: 20, accept: { command } } })
    const judge = `
import fs from 'node:fs'
const out = process.env.RANSOMEYE_OUTPUT_DIR
const burst = () => {
  for (const n of [1, 2]) fs.writeFileSync(out + '/part-' + n, Buffer.alloc(12 * 2 ** 20, n))
  process.exit(${judgeCode})
}
${interrupts ? `process.on('SIGTERM', burst); fs.writeFileSync(out + '/ready', ''); setInterval(() => {}, 1000)` : 'burst()'}`
    writeFileSync(rig.path('judge.mjs'), judge)
    tell(rig, {})
    const run = rig.start(['core', '--json'])
    if (interrupts) {
      await until('the command runs', () => existsSync(join(rig.modelsDir, 'core/work/ready')))
      run.child.kill('SIGTERM')
    }

    const ended = await run.ended

    // The guard may have seen it in time, and ended it: then it has not accepted.
    const isKilled = /was ended because it took too much room/.test(refusalIn(ended.events)?.reason ?? '')
    assert.is(ended.exitCode, isKilled ? 4 : exitCode)
    assert.ok((await checkUsage(join(rig.modelsDir, 'core'))) <= 20 * 2 ** 20)
    const told = (it: TrainerEvent) =>
      it.event === (interrupts ? 'quota.exceeded' : 'warning') &&
      /^Model too large for quota/.test(it.message)
    assert.ok(ended.events.some(told), JSON.stringify(ended.events.slice(-8)))
    if (ended.exitCode === 0) assert.ok(existsSync(join(rig.modelsDir, 'core/current/core.onnx')))
  })
}

inSweep(
  'rollback makes the model before current again, and no training of the same data undoes it',
  async () => {
    await using rig = await trainerRig({ core: telling })
    const train = async (letters: string, trained_on = 'week 1') => {
      tell(rig, { letters }, { trained_on })
      return rig.run(['core', '--retrain', '--json'])
    }
    await train('aaaa')
    await train('bbbb')
    const script = 'scripts/rollback.ts'

    const dry = await rig.run(['core', '--dry-run'], { script })
    const before = current(rig)
    const back = await rig.run(['core', '--json'], { script })
    const after = current(rig)
    const flat = readFileSync(join(rig.modelsDir, 'core/core.onnx')).includes('aaaa')
    const [same, again] = [await train('bbbb'), await train('cccc')]
    const other = await train('dddd', 'week 2')

    assert.equal(
      [dry.exitCode, before, back.exitCode, after, flat],
      [0, 'generations/2', 0, 'generations/1', true],
    )
    const told = back.events.find(it => it.event === 'model.rollback')
    assert.ok(told?.event === 'model.rollback' && told.generation === 1 && told.from === 2)
    assert.equal([same.exitCode, again.exitCode, other.exitCode], [4, 4, 0])
    assert.match(
      refusalIn(same.events)?.reason ?? '',
      /^it is the model of generation 2, from which core was rolled back$/,
    )
    assert.match(
      refusalIn(again.events)?.reason ?? '',
      /^core was rolled back from generation 2, and nothing says/,
    )
    assert.is(current(rig), 'generations/3')
  },
)

inSweep(
  'a model that was rolled back is known again, though its data got other names each time',
  async () => {
    await using rig = await trainerRig({
      core: { train: ['sh', '-c', 'cp told/* "$RANSOMEYE_OUTPUT_DIR"'] },
    })
    const train = async (producer: string, weights: string, trained_on: string) => {
      mkdirSync(rig.path('told'), { recursive: true })
      const external = [{ location: 'core.onnx.data' }]
      writeFileSync(rig.path('told/core.onnx'), onnxModel({ producer, external }))
      writeFileSync(rig.path('told/core.onnx.data'), weights)
      writeFileSync(rig.path('told/metadata.json'), JSON.stringify({ trained_on }))
      return rig.run(['core', '--retrain', '--json'])
    }
    await train('first', 'first', 'week 1')
    await train('second', 'second', 'week 2')
    await rig.run(['core'], { script: 'scripts/rollback.ts' })

    const same = await train('second', 'second', 'week 3')
    const other = await train('second', 'other', 'week 3')

    assert.equal([same.exitCode, other.exitCode], [4, 0])
    assert.match(
      refusalIn(same.events)?.reason ?? '',
      /^it is the model of generation 2, from which core was/,
    )
    assert.is(current(rig), 'generations/3')
  },
)

inSweep('rollback refuses what is not there or is damaged, and is released on demand', async () => {
  await using rig = await trainerRig({ core: telling })
  const script = 'scripts/rollback.ts'
  const train = async (letters: string) => {
    tell(rig, { letters })
    return rig.run(['core', '--retrain'])
  }
  await train('aaaa')
  const none = await rig.run(['core'], { script })
  await train('bbbb')
  const unknown = await rig.run(['core', '--to', '7'], { script })
  const noJob = await rig.run([], { script })
  const itself = await rig.run(['core', '--to', '2', '--dry-run'], { script })
  const both = await rig.run(['core', '--to', '1', '--release'], { script })
  await rig.run(['core'], { script })
  const further = await rig.run(['core'], { script })
  const released = await rig.run(['core', '--release'], { script })
  const next = await train('cccc')
  const bytes = readFileSync(join(rig.modelsDir, 'core/generations/1/core.onnx'))
  bytes[bytes.length - 1]! ^= 1
  writeFileSync(join(rig.modelsDir, 'core/generations/1/core.onnx'), bytes)
  const damaged = await rig.run(['core'], { script })

  assert.equal([none.exitCode, unknown.exitCode, noJob.exitCode, both.exitCode], [1, 64, 64, 64])
  assert.is(itself.exitCode, 64)
  assert.match(itself.stdout, 'generation 2 is current')
  assert.match(unknown.stdout, 'core has no generation 7; there are: 1, 2')
  assert.is(further.exitCode, 1)
  assert.match(
    further.stdout,
    /no generation before the current one is kept in \S+; to another one: --to 2$/m,
  )
  assert.equal([released.exitCode, next.exitCode], [0, 0])
  assert.match(released.stdout, '1 generation of core removed (2)')
  assert.is(damaged.exitCode, 1)
  assert.match(damaged.stdout, /Cannot roll back core to generation 1: its core\.onnx differs/)
  assert.is(current(rig), 'generations/2')
})

test.run()
