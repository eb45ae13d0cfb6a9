import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { publishes, type Rig, trainerRig } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

/** The record of a run on another machine when an NFS server gives it the lock of one that is cut off. */
const other = 'pid 17 on n2, Slurm job 4'
const record = '17\nhost n2\nboot 11111111-2222-3333-4444-555555555555\njob 4\n'

const waits = `
fs.writeFileSync(dir + '/tmp/of-whoever-trains', '')
while (!fs.existsSync(dir + '/go')) await sleep(20)
${publishes}`

async function loseLock(rig: Rig): Promise<void> {
  await until('it trains', () => existsSync(rig.path('models/core/work/tmp/of-whoever-trains')))
  writeFileSync(rig.path('models/.trainer/lock'), record)
}

inSweep(
  'a run whose lock another machine has by now publishes nothing, and leaves the folder to it',
  async () => {
    await using rig = await trainerRig({ core: { train: ['node', 'core.mjs'] } })
    assert.is((await rig.run(['core'])).exitCode, 0)
    const manifest = readFileSync(rig.path('models/core/manifest.json'), 'utf8')
    writeFileSync(rig.path('core.mjs'), readFileSync(rig.path('core.mjs'), 'utf8').replace(publishes, waits))
    const run = rig.start(['core', '--retrain'])
    await loseLock(rig)

    writeFileSync(rig.path('models/core/work/go'), '')
    const { exitCode, stderr, stdout } = await run.ended

    assert.is(exitCode, 75, stderr)
    assert.ok((stdout + stderr).includes(other), stdout + stderr)
    assert.is(readFileSync(rig.path('models/core/manifest.json'), 'utf8'), manifest)
    assert.is(readFileSync(rig.path('models/.trainer/lock'), 'utf8'), record)
  },
)

inSweep(
  'a training whose lock another machine has by now is ended, without its temporary files',
  async () => {
    await using rig = await trainerRig({ core: { trainer: waits } })
    const run = rig.start(['core'])
    await loseLock(rig)

    const { exitCode, stdout, stderr } = await run.ended

    assert.is(exitCode, 75, stderr)
    assert.ok((stdout + stderr).includes(other), stdout + stderr)
    assert.ok(existsSync(rig.path('models/core/work/tmp/of-whoever-trains')))
    assert.not.ok(existsSync(rig.path('models/core/current')))
  },
)

test.run()
