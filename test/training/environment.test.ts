import { lstatSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import * as assert from 'uvu/assert'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { publishes, type Rig, trainerRig } from '../support/rig.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'

const MIB = 2 ** 20
const sandboxed = skipUnless(test, useSandbox('core', 'auto'), 'needs bubblewrap')
const sandboxedInSweep = skipUnless(inSweep, useSandbox('core', 'auto'), 'needs bubblewrap')

/** Prints what it is told, by both ways, and uses so many MiB of it besides a model of 12. */
const usesMost = `
console.log('told', maxMb, 'of', process.env.RANSOMEYE_QUOTA_MB, ...process.argv.slice(2, 4))
fs.writeFileSync(dir + '/core.pkl', Buffer.alloc(12 * 2 ** 20, 1))
for (let n = 0; n < Math.floor(maxMb * 0.95) - 12; n++) { fs.appendFileSync(dir + '/scratch', Buffer.alloc(2 ** 20)); await sleep(5) }
await sleep(300)
fs.rmSync(dir + '/scratch')`

const outputOf = (rig: Rig) => readFileSync(rig.path('models', '.trainer', 'core.log'), 'utf8')
/** The last training's line: the log keeps those of the runs before. */
const toldIn = (rig: Rig) =>
  outputOf(rig)
    .match(/^told .*$/gm)
    ?.at(-1)

inSweep('a training is told what it may use beside what is published, and can use it', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 40, models: ['*.pkl'], trainer: usesMost } })

  const first = await rig.run(['core', '--json'])
  const atFirst = toldIn(rig)
  const second = await rig.run(['core', '--retrain', '--json'])

  assert.equal([first.exitCode, second.exitCode], [0, 0])
  assert.is(atFirst, 'told 40 of 40 --max-disk-mb 40')
  assert.is(toldIn(rig), 'told 28 of 40 --max-disk-mb 28')
})

inSweep(
  'a training is told of what an operator has put beside it, and not of what it has left itself',
  async () => {
    const trainer = `
console.log('told', maxMb)
fs.writeFileSync(dir + '/dataset', Buffer.alloc(10 * 2 ** 20))
fs.writeFileSync(dir + '/core.pkl', 'model')`
    await using rig = await trainerRig({ core: { maxDiskMb: 40, models: ['*.pkl'], trainer } })
    await rig.run(['core'])
    writeFileSync(rig.path('models', 'core', 'notes'), Buffer.alloc(5 * MIB))

    await rig.run(['core', '--retrain'])

    assert.is(toldIn(rig), 'told 35')
  },
)

inSweep(
  'a training is told of all that it may use, whatever of its own is there to be pruned, or kept',
  async () => {
    const trainer = `
console.log('told', maxMb)
for (const name of ['cache/models', 'tmp-half', 'a.checkpoint', 'last.ckpt']) {
  fs.mkdirSync(dir + '/' + name, { recursive: true })
  fs.writeFileSync(dir + '/' + name + '/weights', Buffer.alloc(4 * 2 ** 20))
}
if (fs.existsSync(dir + '/../../healthy')) fs.writeFileSync(dir + '/core.pkl', 'model')`
    await using rig = await trainerRig({
      core: { maxDiskMb: 40, models: ['*.pkl'], framework: 'lightning', trainer },
    })
    await rig.run(['core'])
    writeFileSync(rig.path('models', 'healthy'), '')

    const { exitCode } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    assert.is(toldIn(rig), 'told 40')
  },
)

inSweep('the whole quota is that of the run', async () => {
  const trainer = `console.log('told', maxMb, process.env.RANSOMEYE_QUOTA_MB); fs.writeFileSync(dir + '/core.pkl', 'model')`
  await using rig = await trainerRig({ core: { maxDiskMb: 40, models: ['*.pkl'], trainer } })

  await rig.run(['--max-disk-mb', '30'], { script: 'scripts/core.ts' })

  assert.is(toldIn(rig), 'told 30 30')
})

for (const sandbox of ['auto', 'off'] as const) {
  inSweep(
    `caches and HOME of a training (sandbox ${sandbox}) last, and no model is taken out of them`,
    async () => {
      const trainer = `
const caches = [process.env.HF_HOME, process.env.HOME + '/.triton', process.env.TMPDIR]
console.log('found', caches.map(cache => fs.existsSync(cache + '/hub/base.onnx')).join())
for (const cache of caches) { fs.mkdirSync(cache + '/hub', { recursive: true }); fs.copyFileSync(fixture, cache + '/hub/base.onnx') }
${publishes}`
      await using rig = await trainerRig({ core: { models: ['**/*.onnx'], trainer, sandbox } })

      const first = await rig.run(['core', '--json'])
      const second = await rig.run(['core', '--retrain', '--json'])

      assert.equal([first.exitCode, second.exitCode], [0, 0])
      assert.equal(outputOf(rig).match(/^found .*$/gm), ['found false,false,false', 'found true,true,false'])
      const published = second.events.flatMap(it => (it.event === 'model.publish' ? [it.path] : []))
      assert.equal(
        published.map(path => basename(path)),
        ['core.onnx'],
      )
    },
  )

  inSweep(
    `a training (sandbox ${sandbox}) that puts links in the place of its caches is given folders again`,
    async () => {
      const trainer = `
for (const name of ['cache', 'home']) {
  fs.rmSync(dir + '/' + name, { recursive: true })
  fs.symlinkSync(process.cwd() + '/elsewhere', dir + '/' + name)
}
${publishes}`
      await using rig = await trainerRig({ core: { trainer, sandbox } })
      mkdirSync(rig.path('elsewhere'))
      const before = statSync(rig.path('elsewhere'))
      await rig.run(['core'])

      const { exitCode } = await rig.run(['core', '--retrain'])

      const after = statSync(rig.path('elsewhere'))
      assert.is(exitCode, 0)
      assert.equal([after.uid, after.mode, after.ctimeMs], [before.uid, before.mode, before.ctimeMs])
      assert.ok(!lstatSync(rig.path('models', 'core', 'work', 'cache')).isSymbolicLink())
    },
  )
}

inSweep(
  'placeholders in env are filled in as in the command, and env replaces what a training has by itself',
  async () => {
    const trainer = `console.log('env', process.env.X_CACHE, process.env.HOME, process.env.PYTHONUNBUFFERED); ${publishes}`
    const env = {
      X_CACHE: '{outputDir}/x:{modelDir}:{maxDiskMb}',
      HOME: '/nonexistent',
      PYTHONUNBUFFERED: '',
    }
    await using rig = await trainerRig({ core: { trainer, env } })

    await rig.run(['core'])

    const dir = rig.path('models', 'core')
    assert.match(outputOf(rig), `env ${dir}/work/x:${dir}:20 /nonexistent \n`)
  },
)

sandboxedInSweep('a training in a folder with a long path can have sockets in its TMPDIR', async () => {
  const trainer = `
const net = await import('node:net')
await new Promise((resolve, reject) => net.createServer().on('error', reject).listen(process.env.TMPDIR + '/socket', resolve))
${publishes}
process.exit()`
  await using rig = await trainerRig({ core: { trainer } })
  const long = rig.path(...Array.from({ length: 12 }, () => 'a-long-name'), 'models')

  const { exitCode } = await rig.run(['core', '--models-dir', long], { withModelsDir: false })

  assert.ok(`${long}/core/work/tmp/socket`.length > 107)
  assert.is(exitCode, 0)
})

sandboxedInSweep('the user that a training of root runs as has the same home as its HOME', async () => {
  const trainer = `console.log('homes', (await import('node:os')).userInfo().homedir, process.env.HOME); ${publishes}`
  await using rig = await trainerRig({ core: { trainer } })

  await rig.run(['core'])

  const home = rig.path('models', 'core', 'work', 'home')
  const [, ofUser, ofProcess] = /^homes (\S+) (\S+)$/m.exec(outputOf(rig))!
  assert.is(ofProcess, home)
  if (process.getuid?.() === 0) assert.is(ofUser, home)
})

sandboxed('a failure for a write that the sandbox refused names the path and what would help', async () => {
  const trainer = `fs.mkdirSync('mlruns')`
  await using rig = await trainerRig({ core: { trainer } })

  const { exitCode, events } = await rig.run(['core', '--json'])

  const [failure] = events.filter(it => it.event === 'job.fail')
  assert.is(exitCode, 1)
  assert.match(failure!.message, `the sandbox refused a write to ${rig.path('mlruns')}`)
  assert.match(failure!.message, '"env": {')
})

sandboxedInSweep(
  'a path in /tmp that a command names is there in the sandbox, also behind an option',
  async () => {
    await using data = await sandbox({ mod: 1, set: 1 })
    const script = `cat "$0" "\${1#--data=}" && cp fixture.onnx "$RANSOMEYE_OUTPUT_DIR"/core.onnx`
    // The path of the models folder begins as the first one does.
    const train = ['sh', '-c', script, data.path('mod'), `--data=${data.path('set')}`]
    await using rig = await trainerRig({ core: { train } })

    const options = { withModelsDir: false }
    const { exitCode, stdout } = await rig.run(['core', '--models-dir', data.path('models')], options)

    assert.is(exitCode, 0, stdout)
  },
)

test.run()
