import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { root } from '../support/places.ts'
import { publishes, trainerRig, untilEvent } from '../support/rig.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, inTurn, test } from '../support/test.ts'

const sandboxed = skipUnless(test, useSandbox('core', 'auto'), 'needs bubblewrap')
const withPython = skipUnless(inSweep, existsSync('/usr/bin/python3'), 'needs python3')

for (const [turn, sandbox] of (['auto', 'off'] as const).entries()) {
  const testHere = inTurn(turn, 2)

  testHere(
    `a training that puts a link in the place of its output folder (sandbox ${sandbox}) reaches nothing outside`,
    async () => {
      const trainer = `
try { fs.renameSync(dir, dir + '-gone'); fs.symlinkSync(process.env.VICTIM, dir) } catch (error) { console.log(error.code) }`
      await using rig = await trainerRig({ core: { trainer, sandbox } })
      const victim = rig.path('victim')
      mkdirSync(`${victim}/tmp`, { recursive: true })
      writeFileSync(`${victim}/tmp/precious`, 'x')
      writeFileSync(`${victim}/core.onnx`, onnxModel())
      const quotas = JSON.parse(readFileSync(rig.path('quotas.json'), 'utf8'))
      quotas.jobs.core.env = { VICTIM: victim }
      writeFileSync(rig.path('quotas.json'), JSON.stringify(quotas))

      const { exitCode } = await rig.run(['core'])

      assert.is(exitCode, 1)
      assert.ok(existsSync(`${victim}/tmp/precious`) && existsSync(`${victim}/core.onnx`))
      assert.not(existsSync(rig.path('models', 'core', 'core.onnx')))
    },
  )

  inSweep(
    `a failed training (sandbox ${sandbox}) cannot have a publication of its own completed`,
    async () => {
      const trainer = `
const published = process.env.RANSOMEYE_MODEL_DIR
if (!fs.existsSync(published + '/core.onnx')) { ${publishes}; process.exit() }
const { createHash } = await import('node:crypto')
fs.writeFileSync(dir + '/core.onnx', 'garbage')
const files = { 'core.onnx': createHash('sha256').update('garbage').digest('hex') }
const next = { metadata: { models: ['core.onnx'], model_globs: ['*.onnx'] }, files }
fs.writeFileSync(published + '/manifest.json.next', JSON.stringify(next))
process.exit(1)`
      await using rig = await trainerRig({ core: { trainer, sandbox } })
      await rig.run(['core'])

      const failed = await rig.run(['core', '--retrain'])
      const next = await rig.run(['core'])

      assert.equal([failed.exitCode, next.exitCode], [1, 0])
      assert.equal(readFileSync(rig.path('models', 'core', 'core.onnx')), onnxModel())
    },
  )

  inSweep(
    `a training that removes its temporary folder (sandbox ${sandbox}) is published all the same`,
    async () => {
      const trainer = `try { fs.rmSync(process.env.TMPDIR, { recursive: true }) } catch {} ${publishes}`
      await using rig = await trainerRig({ core: { trainer, sandbox } })

      const { exitCode } = await rig.run(['core'])

      assert.is(exitCode, 0)
    },
  )
}

sandboxed('a training cannot give the lock away', async () => {
  const trainer = `spawnSync('flock', ['-u', '3'], { stdio: [0, 1, 2, 3] }); await sleep(3000); ${publishes}`
  await using rig = await trainerRig({ core: { trainer } })
  const first = rig.start(['core'])
  await untilEvent(rig, 'train.start')
  await delay(1000) // for what must not happen

  const second = await rig.run(['dpi'])
  const { exitCode } = await first.ended

  assert.equal([second.exitCode, exitCode], [75, 0])
})

inSweep(
  'whoever starts a run is not taken for a remainder of a training, whatever its environment',
  async () => {
    await using rig = await trainerRig()
    const RANSOMEYE_OUTPUT_DIR = rig.path('models', 'core', 'work')

    const script = '"$@"; echo "the shell lives, $?"'
    const { stdout } = await rig.run(['core'], {
      prefix: ['sh', '-c', script, 'sh'],
      env: { RANSOMEYE_OUTPUT_DIR },
    })

    assert.match(stdout, 'the shell lives, 0')
  },
)

withPython('a process whose first thread has ended is ended with the job too', async () => {
  const trainer = `
spawn('/usr/bin/python3', [${JSON.stringify(`${root}/test/fixtures/headless.py`)}, dir + '/beat'], { stdio: 'ignore', detached: true }).unref()
while (!fs.existsSync(dir + '/beat')) await sleep(50)
await sleep(1500)
${publishes}`
  await using rig = await trainerRig({ core: { trainer, sandbox: 'off' } })

  const { exitCode } = await rig.run(['core'])
  const size = () => statSync(rig.path('models', 'core', 'work', 'beat')).size
  const before = size()
  await delay(500) // for what must not happen

  assert.is(exitCode, 0)
  assert.ok(before > 0)
  assert.is(size(), before)
})

inSweep('a run ends though a training without a sandbox has stopped its watchdog', async () => {
  const trainer = `
const args = pid => { try { return fs.readFileSync('/proc/' + pid + '/cmdline', 'latin1').split('\\0') } catch { return [] } }
const isHelper = pid => args(pid).includes(String(process.pid)) && args(pid).some(it => it.includes('read -ru'))
const helpers = () => fs.readdirSync('/proc').filter(isHelper)
while (helpers().length > 1) await sleep(5) // the other one is about to be \`cat\`
const [watchdog] = helpers()
process.kill(Number(watchdog), 'SIGSTOP')
console.log('stopped', watchdog)
${publishes}`
  await using rig = await trainerRig({ core: { trainer, sandbox: 'off' } })
  const run = rig.start(['core', '--json'])

  const { exitCode, events } = await run.ended

  assert.is(exitCode, 0)
  const [watchdog] = events.flatMap(it =>
    it.event === 'train.output' ? [Number(it.line.split(' ')[1])] : [],
  )
  process.kill(watchdog!, 'SIGKILL')
})

test.run()
