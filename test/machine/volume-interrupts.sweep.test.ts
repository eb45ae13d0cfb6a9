import { spawn } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import * as assert from 'uvu/assert'
import { moduleOf } from '../support/places.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep } from '../support/test.ts'
import { hasLoopDevices, mountOptions, type VolumeRig, volumeRig } from '../support/volume-rig.ts'

const mounting = skipUnless(inSweep, hasLoopDevices, 'needs root and loop devices')
const script = 'scripts/volume.ts'
const killer = moduleOf('test/support/kill-at-program.ts')

/**
 * Run a command on core's volume, and kill it when it has started its program number `step`.
 *
 * @returns false if it starts fewer
 */
async function killAtStep(rig: VolumeRig, command: string, step: number): Promise<boolean> {
  const env = { NODE_OPTIONS: `--import=${killer}`, KILL_AT_PROGRAM: `${step}` }
  const { signal } = await rig.start([command, 'core'], { script, env }).ended
  return signal === 'SIGKILL'
}

/** Each of two sweeps at the same time takes every other step. */
const STRIDE = 2

type Sweep = { kills: { create: number; remove: number }; faults: string[] }

/**
 * Kill `create` at each step from `first` on in strides, then let it complete; the same with `remove`.
 *
 * @returns how often each was killed, and what was not as it should be afterwards
 */
async function sweep(rig: VolumeRig, first: number): Promise<Sweep> {
  const result: Sweep = { kills: { create: 0, remove: 0 }, faults: [] }
  let wasKilled = true
  for (let step = first; wasKilled; step += STRIDE) {
    wasKilled = false
    for (const command of ['create', 'remove'] as const) {
      if (await killAtStep(rig, command, step)) {
        result.kills[command]++
        wasKilled = true
      }
      // A program that was killed with it holds the lock until the kernel has ended it.
      const { exitCode, stderr } = await until('the lock is free', async () => {
        const outcome = await rig.volume(command)
        return outcome.exitCode === 75 ? undefined : outcome
      })
      const left = [mountOptions(rig.folder) ? 'mounted' : '', ...readdirSync(dirname(rig.image))].join(' ')
      if (exitCode !== 0 || left !== (command === 'create' ? 'mounted core.img' : '')) {
        result.faults.push(`${command} killed at step ${step}: ${exitCode} ${stderr}, left ${left}`)
      }
    }
  }
  return result
}

/**
 * Read small files a thousand times a second in a process of its own until `action` is over.
 *
 * @returns how often one was there, and how often not or not whole
 */
async function watchFiles(
  files: string[],
  content: string,
  action: () => Promise<void>,
): Promise<{ whole: number; missed: number }> {
  const code = `
const [content, ...files] = process.argv.slice(1)
const seen = { whole: 0, missed: 0 }
const read = file => { try { return fs.readFileSync(file, 'utf8') } catch {} }
setInterval(() => { for (const file of files) read(file) === content ? seen.whole++ : seen.missed++ }, 1)
process.stdin.on('end', () => { console.log(JSON.stringify(seen)); process.exit() }).resume()`
  const watcher = spawn(process.execPath, ['-e', code, content, ...files], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const said = text(watcher.stdout)
  await action().finally(() => watcher.stdin.end())
  return JSON.parse(await said)
}

mounting(
  'create and remove that are killed at any step complete at the next start; no model is ever missing',
  async () => {
    await using odd = await volumeRig()
    await using even = await volumeRig()
    const models = [odd, even].map(({ folder }) => join(folder, 'core.onnx'))
    for (const model of models) {
      mkdirSync(dirname(model), { recursive: true })
      writeFileSync(model, 'the model')
    }

    let sweeps: Sweep[] = []
    const seen = await watchFiles(models, 'the model', async () => {
      sweeps = await Promise.all([sweep(odd, 1), sweep(even, 2)])
    })

    assert.is(seen.missed, 0)
    assert.ok(seen.whole > 1000, `${seen.whole} reads`)
    assert.equal(
      sweeps.flatMap(({ faults }) => faults),
      [],
    )
    for (const { kills } of sweeps)
      assert.ok(kills.create + kills.remove >= 20 / STRIDE, JSON.stringify(kills))
  },
)

inSweep.run()
