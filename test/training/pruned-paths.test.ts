import { readFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { findPruned, isComplaint } from '../../lib/training/pruned-paths.ts'
import { publishes, trainerRig } from '../support/rig.ts'
import { inSweep, test } from '../support/test.ts'

const work = '/models/core/work'
const pruned = ['checkpoint-200', 'best', 'out/epoch=3-step=40.ckpt', 'ckpt-12.index'].map(name => ({
  path: `${work}/${name}`,
  rule: 'rule',
  time: '2026-11-29T02:31:06.000Z',
}))
const found = (line: string) => findPruned(line, pruned)?.path.slice(work.length + 1)

const about: [line: string, name: string][] = [
  [
    `FileNotFoundError: [Errno 2] No such file or directory: '${work}/checkpoint-200/model.safetensors'`,
    'checkpoint-200',
  ],
  [`ValueError: Can't find a valid checkpoint at ${work}/checkpoint-200`, 'checkpoint-200'],
  ['Could not locate the best model at out/checkpoint-200/pytorch_model.bin, if you are', 'checkpoint-200'],
  [
    'tensorflow.python.framework.errors_impl.NotFoundError: ckpt-12.index; No such file or directory',
    'ckpt-12.index',
  ],
  [
    `Error: ENOENT: no such file or directory, open '${work}/out/epoch=3-step=40.ckpt'`,
    'out/epoch=3-step=40.ckpt',
  ],
  [`OSError: ${work}/best does not exist`, 'best'],
]
for (const [line, name] of about) {
  test(`findPruned() knows that "${line}" is about ${name}`, () => {
    assert.is(found(line), name)
    assert.ok(isComplaint(line))
  })
}

const notAbout = [
  `FileNotFoundError: '${work}/checkpoint-20'`,
  `FileNotFoundError: '${work}/checkpoint-2000'`,
  `FileNotFoundError: '/data/checkpoint-200'`,
  'could not find the best threshold',
  'ValueError: loss is nan',
]
for (const line of notAbout) {
  test(`findPruned() finds nothing in "${line}"`, () => {
    assert.is(found(line), undefined)
  })
}

/** Writes 2 MiB checkpoints for three times the quota, and then misses the first. */
const missesItsFirst = `
for (let n = 1; n <= 20; n++) { fs.writeFileSync(dir + '/epoch-' + n + '.checkpoint', Buffer.alloc(2 * 2 ** 20, n)); await sleep(60) }
const read = () => fs.readFileSync(dir + '/epoch-1.checkpoint')`

inSweep(
  'a failure for want of a checkpoint that this run has pruned says so, when and by which rule',
  async () => {
    await using rig = await trainerRig({ core: { maxDiskMb: 14, trainer: `${missesItsFirst}\nread()` } })

    const { exitCode, events } = await rig.run(['core', '--json'])

    const [failure] = events.filter(it => it.event === 'job.fail')
    assert.is(exitCode, 1)
    const path = rig.path('models', 'core', 'work', 'epoch-1.checkpoint')
    assert.match(failure!.message, `; its output names ${path}, which this run pruned at `)
    assert.match(failure!.message, /at \d\d:\d\d:\d\d UTC to keep the quota \(rule \*\.checkpoint\)/)
    const attempts = JSON.parse(readFileSync(rig.path('models/.trainer/core.attempts.json'), 'utf8'))
    assert.is(attempts.failures, 0, 'the newest checkpoint is not to blame')
  },
)

inSweep(
  'a training that ends with 0 after complaining of a checkpoint that this run has pruned is warned of',
  async () => {
    const trainer = `${missesItsFirst}\ntry { read() } catch (error) { console.log('warning:', error.message) }\n${publishes}`
    await using rig = await trainerRig({ core: { maxDiskMb: 14, trainer } })

    const { exitCode, events } = await rig.run(['core', '--json'])

    const warnings = events.flatMap(it => (it.event === 'warning' ? [it.message] : []))
    assert.is(exitCode, 0)
    assert.is(
      warnings.filter(it => /ended with 0, but said "warning: ENOENT.*epoch-1\.checkpoint/.test(it)).length,
      1,
    )
  },
)

test.run()
