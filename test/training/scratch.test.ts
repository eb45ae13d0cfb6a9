import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { scratchLayout } from '../../lib/layout.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { publishes, type Rig, trainerRig, untilEvent } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

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
  assert.equal(lines, [`worked in ${scratchLayout(scratch, rig.modelsDir, 'core').workDir}`])
  assert.equal(readdirSync(scratch), [])
  const again = await rig.run(['core', '--scratch', scratch, '--json'])
  assert.ok(again.events.some(({ event }) => event === 'job.skip'))
})

test('a training that fails on scratch leaves nothing there, and the published model as it was', async () => {
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
})

test('what is published counts against the quota of a training on scratch', async () => {
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

test('a run that is killed loses only what is on scratch, and the next one is not hindered by it', async () => {
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
})

test('a scratch folder that this machine does not have is refused, not made', async () => {
  await using rig = await trainerRig()

  const { exitCode, stdout } = await rig.run(['core', '--scratch', rig.path('nowhere')])

  assert.is(exitCode, 3)
  assert.match(stdout, /there is no such folder on this machine; make or mount it/)
  assert.not(existsSync(rig.path('nowhere')))
})

test.run()
