import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { scratchLayout } from '../../lib/settings/layout.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { publishes, type Rig, trainerRig, untilEvent } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

/** Tells where it has worked, in a file that is published with nothing. */
const tells = `${publishes}\nconsole.log('worked in ' + dir)`

function scratchOf(rig: Rig): string {
  const scratch = rig.path('scratch')
  mkdirSync(scratch)
  return scratch
}

test('a job trains on scratch, publishes in the models folder, and leaves nothing on scratch', async () => {
  await using rig = await trainerRig({ core: { trainer: tells } })
  const scratch = scratchOf(rig)

  const { exitCode, events, stderr } = await rig.run(['core', '--scratch', scratch, '--json'])

  assert.is(exitCode, 0, stderr)
  assert.ok(existsSync(join(rig.modelsDir, 'core', 'core.onnx')))
  const lines = events.flatMap(it => (it.event === 'train.output' ? [it.line] : []))
  const { workDir } = await scratchLayout(scratch, rig.modelsDir, 'core')
  assert.equal(lines, [`worked in ${workDir}`])
  assert.equal(readdirSync(scratch), [])
  const again = await rig.run(['core', '--scratch', scratch, '--json'])
  assert.ok(again.events.some(({ event }) => event === 'job.skip'))
})

inSweep(
  'a training that fails on scratch leaves nothing there, and the published model as it was',
  async () => {
    await using rig = await trainerRig({
      core: {
        trainer: `if (fs.existsSync('fails')) { fs.writeFileSync(dir + '/1.checkpoint', 'x'); process.exit(5) }\n${publishes}`,
      },
    })
    const scratch = scratchOf(rig)
    await rig.run(['core', '--scratch', scratch])
    const model = join(rig.modelsDir, 'core', 'core.onnx')
    const before = readFileSync(model)
    writeFileSync(rig.path('fails'), '')

    const { exitCode } = await rig.run(['core', '--retrain', '--scratch', scratch])

    assert.is(exitCode, 1)
    assert.equal(readFileSync(model), before)
    assert.equal(readdirSync(scratch), [])
  },
)

test('a folder on scratch that another name leads to is refused, and nothing in it is deleted', async () => {
  await using rig = await trainerRig({ core: { trainer: publishes } })
  const scratch = scratchOf(rig)
  mkdirSync(rig.path('elsewhere/core'), { recursive: true })
  writeFileSync(rig.path('elsewhere/core/precious'), 'x')
  const { jobDir } = await scratchLayout(scratch, rig.modelsDir, 'core')
  symlinkSync(rig.path('elsewhere'), dirname(jobDir))

  const { exitCode, stdout } = await rig.run(['core', '--scratch', scratch])

  assert.is(exitCode, 3)
  assert.match(stdout, /is a symbolic link/)
  assert.ok(existsSync(rig.path('elsewhere/core/precious')))
})

inSweep('what is published counts against the quota of a training on scratch', async () => {
  await using rig = await trainerRig({
    core: {
      maxDiskMb: 10,
      trainer: `fs.writeFileSync(dir + '/big.tmp2', Buffer.alloc(6 * 2 ** 20))\n${publishes}`,
    },
  })
  mkdirSync(join(rig.modelsDir, 'core'), { recursive: true })
  writeFileSync(join(rig.modelsDir, 'core', 'core.onnx'), onnxModel())
  writeFileSync(join(rig.modelsDir, 'core', 'data.bin'), Buffer.alloc(5 * 2 ** 20))

  const { exitCode, events } = await rig.run(['core', '--retrain', '--json', '--scratch', scratchOf(rig)])

  const limits = events.flatMap(it => (it.event === 'job.start' ? [it.limitBytes] : []))
  assert.ok(limits[0]! < 5 * 2 ** 20, String(limits))
  assert.is(exitCode, 2)
})

inSweep('published files that leave nothing of the quota are told, with the remedy', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 10 } })
  mkdirSync(join(rig.modelsDir, 'core'), { recursive: true })
  writeFileSync(join(rig.modelsDir, 'core', 'data.bin'), Buffer.alloc(11 * 2 ** 20))
  const scratch = scratchOf(rig)

  const { exitCode, stderr, events } = await rig.run(['core', '--json', '--scratch', scratch])

  const messages = events.flatMap(it => (['job.fail', 'warning'].includes(it.event) ? [it] : []))
  assert.equal([exitCode, stderr, messages.length], [2, '', 1])
  assert.match(
    JSON.stringify(messages),
    /Model too large for quota: core holds 11\.0 MiB in [^ ]*\/models\/core that is never pruned, its quota is 10 MiB; raise it by more than 1\.0 MiB, or remove what is not needed there/,
  )
  assert.equal(readdirSync(scratch), [])
})

inSweep(
  'earlier generations take nothing of the room on scratch, and go when a new model needs their place',
  async () => {
    const trainer = `
const { letter, mb } = JSON.parse(fs.readFileSync('orders.json', 'utf8'))
fs.writeFileSync(dir + '/core.pkl', Buffer.alloc(mb * 2 ** 20, letter))`
    await using rig = await trainerRig({
      core: { maxDiskMb: 20, models: ['*.pkl'], keepGenerations: 3, trainer },
    })
    const scratch = scratchOf(rig)
    const train = async (letter: string, mb: number) => {
      writeFileSync(rig.path('orders.json'), JSON.stringify({ letter, mb }))
      return rig.run(['core', '--retrain', '--json', '--scratch', scratch])
    }
    const generations = () => readdirSync(join(rig.modelsDir, 'core/generations')).sort()
    await train('a', 6)
    await train('b', 6)
    const before = generations()

    const { exitCode, events, stderr } = await train('c', 10)

    const pruned = events.flatMap(it => (it.event === 'storage.prune' ? [it.path] : []))
    assert.is(exitCode, 0, stderr)
    assert.equal(
      [before, generations()],
      [
        ['1', '2'],
        ['2', '3'],
      ],
    )
    assert.equal(pruned, [join(rig.modelsDir, 'core/generations/1')])
    assert.ok(readFileSync(join(rig.modelsDir, 'core/core.pkl')).equals(Buffer.alloc(10 * 2 ** 20, 'c')))
  },
)

inSweep(
  'a model for which there is no room beside the current one is refused on scratch, and that one stays',
  async () => {
    const trainer = `fs.writeFileSync(dir + '/core.pkl', Buffer.alloc(12 * 2 ** 20, String(Date.now())))`
    await using rig = await trainerRig({ core: { maxDiskMb: 20, models: ['*.pkl'], trainer } })
    const scratch = scratchOf(rig)
    const first = await rig.run(['core', '--scratch', scratch])

    const second = await rig.run(['core', '--retrain', '--json', '--scratch', scratch])

    assert.equal([first.exitCode, second.exitCode], [0, 2])
    assert.equal(readdirSync(join(rig.modelsDir, 'core/generations')), ['1'])
    assert.equal(readdirSync(scratch), [])
  },
)

inSweep(
  'a run that is killed loses only what is on scratch, and the next one is not hindered by it',
  async () => {
    await using rig = await trainerRig({
      core: { trainer: `if (!fs.existsSync('goes')) await sleep(60_000)\n${publishes}` },
    })
    const scratch = scratchOf(rig)
    const run = rig.start(['core', '--scratch', scratch])
    await untilEvent(rig, 'train.start')
    run.child.kill('SIGKILL')
    await run.ended
    writeFileSync(rig.path('goes'), '')
    assert.ok(readdirSync(scratch).length > 0)

    const { exitCode, stderr } = await until('the lock is free', async () => {
      const ended = await rig.run(['core', '--scratch', scratch])
      return ended.exitCode === 75 ? undefined : ended
    })

    assert.is(exitCode, 0, stderr)
    assert.equal(readdirSync(scratch), [])
  },
)

test('a scratch folder that this machine does not have is refused, not made', async () => {
  await using rig = await trainerRig()

  const { exitCode, stdout } = await rig.run(['core', '--scratch', rig.path('nowhere')])

  assert.is(exitCode, 3)
  assert.match(stdout, /there is no such folder on this machine; make or mount it/)
  assert.not(existsSync(rig.path('nowhere')))
})

test.run()
