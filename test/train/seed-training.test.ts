/** Processes are started by node:child_process, because zx needs `ps` to kill one. */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { MIB } from '../../lib/text.ts'
import { dpiJob } from '../../scripts/train/dpi.ts'
import { programOf } from '../support/places.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'
import { smallAgent, smallCore, smallDpi, trainSmall } from '../support/train-fixture.ts'

inSweep(
  'a training killed by SIGKILL goes on after its newest checkpoint and ends in the same bytes',
  async () => {
    await using box = await sandbox()
    const request = { seed: 3, epochs: 12 }
    const argv = ['--max-disk-mb', '5', '--output-dir', box.path('killed'), '--seed', '3', '--epochs', '12']
    const first = start(argv)
    await until('the second checkpoint', () => existsSync(box.path('killed/epoch-2.checkpoint')))
    first.child.kill('SIGKILL')
    await first.ended
    assert.not(existsSync(box.path('killed/dpi.onnx')))

    const second = start(argv)
    const { exitCode, stdout } = await second.ended
    const { onnx } = await trainSmall(dpiJob, box.path('whole'), request)

    assert.is(exitCode, 0)
    assert.match(stdout, /^going on after epoch [2-9]$/m)
    assert.not.match(stdout, /^epoch [12]\//m)
    assert.ok(Buffer.from(onnx).equals(readFileSync(box.path('killed/dpi.onnx'))))
  },
)

for (const job of [smallCore, smallDpi]) {
  inSweep(`the same seed gives the same ${job.name} model, another seed another one`, async () => {
    await using box = await sandbox()

    const [one, two, other] = [
      await trainSmall(job, box.path('one')),
      await trainSmall(job, box.path('two')),
      await trainSmall(job, box.path('other'), { seed: 8 }),
    ]

    assert.ok(Buffer.from(one.onnx).equals(two.onnx))
    assert.not.ok(Buffer.from(one.onnx).equals(other.onnx))
  })
}

inSweep('the same seed and files give the same agent model', async () => {
  await using box = await sandbox()
  const job = { ...smallAgent, buildDataset: (seed: number) => smallAgent.buildDataset(seed, 60) }

  const one = await trainSmall(job, box.path('one'))
  const two = await trainSmall(job, box.path('two'))

  assert.ok(Buffer.from(one.onnx).equals(two.onnx))
})

test('a finished training leaves its model and what it says about it, and the next is a new one', async () => {
  await using box = await sandbox()
  const lines: string[] = []
  await trainSmall(smallDpi, box.dir)
  const left = readdirSync(box.dir).sort()

  const { metrics } = await trainSmall(smallDpi, box.dir, {}, line => lines.push(line))

  assert.equal(left, ['dpi.onnx', 'metadata.json'])
  const metadata = JSON.parse(readFileSync(box.path('metadata.json'), 'utf8'))
  assert.equal(Object.keys(metadata).sort(), [
    'classes',
    'features',
    'performance_metrics',
    'seed',
    'trained_on',
    'version',
  ])
  assert.equal(metadata.performance_metrics, metrics)
  assert.ok(lines.some(line => /^epoch 1\/4 {2}loss \d\.\d{4} {2}holdout [01]\.\d{3}$/.test(line)))
  assert.match(lines.at(-1)!, /^dpi: .* right/)
})

test('a quota that other files fill is refused with exit 1 before anything is written', async () => {
  await using box = await sandbox({ 'other.bin': MIB - 8192 })

  const failure = await trainSmall(smallDpi, box.dir, { maxDiskMb: 1 }).catch(error => error)

  assert.instance(failure, TrainerError)
  assert.is(failure.exitCode, 1)
  assert.match(failure.message, /^Cannot train in .*--max-disk-mb 1 /)
  assert.equal(readdirSync(box.dir), ['other.bin'])
})

for (const [room, freeBytes, kept] of [
  ['ample', 512 * 1024, ['epoch-2.checkpoint', 'epoch-3.checkpoint']],
  ['tight', 98 * 1024, ['epoch-3.checkpoint']],
] as const) {
  test(`where the quota is ${room}, ${kept.length} of the checkpoints are kept`, async () => {
    await using box = await sandbox({ 'other.bin': MIB - freeBytes - 4096 })
    let seen: string[] = []

    await trainSmall(smallDpi, box.dir, { maxDiskMb: 1 }, line => {
      if (line.startsWith('epoch 3/')) seen = readdirSync(box.dir).sort()
    })

    assert.equal(seen, [...kept, 'other.bin'])
  })
}

function start(argv: string[]) {
  const child = spawn('node', [...programOf('scripts/train/dpi.ts'), ...argv])
  const closed = new Promise<number | null>(resolve => child.on('close', resolve))
  const ended = Promise.all([closed, text(child.stdout), text(child.stderr)]).then(
    ([exitCode, stdout, stderr]) => ({ exitCode, stdout, stderr }),
  )
  return { child, ended }
}

test.run()
