import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { LiveList } from '../../lib/run/live-list.ts'
import { publishes, type Rig, trainerRig } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const logOf = (rig: Rig) => readFileSync(join(rig.modelsDir, '.trainer', 'core.log'), 'utf8')
const statusOf = async (rig: Rig, ...args: string[]) =>
  (await rig.run(args, { script: 'scripts/status.ts' })).stdout
const toldIn = (rig: Rig) => rig.events().flatMap(it => (it.event === 'train.progress' ? [it.share] : []))

inSweep(
  'what a bar tells is in status while it is drawn, and its last state is one line of the log',
  async () => {
    const trainer = `
const draw = n => process.stdout.write('\\r\\x1b[?25l\\x1b[32m' + String(n).padStart(3) + '%|###\\x1b[0m| ' + n + '/100 [00:01]')
for (let n = 1; n <= 42; n++) { draw(n); await sleep(60) }
while (!fs.existsSync(process.cwd() + '/go')) await sleep(50)
process.stdout.write('\\nexporting\\n')
${publishes}`
    await using rig = await trainerRig({ core: { trainer } })
    const run = rig.start(['core', '--json'])
    const isEstimated = () =>
      rig.events().some(it => it.event === 'train.progress' && it.secondsLeft !== undefined)
    await until('the estimate is there', isEstimated)

    const { running } = JSON.parse(await statusOf(rig, '--json'))
    const text = await statusOf(rig)
    writeFileSync(rig.path('go'), '')
    await run.ended

    assert.ok(running.progress.share > 0 && running.progress.secondsLeft >= 0, JSON.stringify(running))
    assert.match(text, /^it says: [█░]{20} \d+ %, about .* left$/m)
    assert.match(logOf(rig), ' 42%|###| 42/100 [00:01]\nexporting\n')
    assert.is(logOf(rig).match(/%\|/g)?.length, 1)
    assert.is(JSON.parse(await statusOf(rig, '--json')).running, null)
  },
)

test('progress that a line tells for it is journaled when it begins and when it goes, and not shown as a line', async () => {
  const trainer = `
console.log('epoch 1/4 loss 0.5'); console.log('RANSOMEYE_PROGRESS 0.25'); await sleep(200)
console.log('RANSOMEYE_PROGRESS 1'); await sleep(200)
process.exitCode = 3`
  await using rig = await trainerRig({ core: { trainer } })

  const { events } = await rig.run(['core', '--json'])

  assert.is(toldIn(rig)[0], 0.25)
  const lines = events.flatMap(it => (it.event === 'train.output' ? [it.line] : []))
  assert.equal(lines, ['epoch 1/4 loss 0.5'])
  assert.match(events.find(it => it.event === 'job.fail')!.message, 'its last line was "epoch 1/4 loss 0.5"')
})

const LAUNCHERS: [string, string][] = [
  [
    'accelerate',
    'Traceback (most recent call last):\n  File "/v/bin/accelerate", line 8, in <module>\n    sys.exit(main())\n' +
      "subprocess.CalledProcessError: Command '['/v/bin/python3', 'train.py', '/out']' returned non-zero exit status 1.\n",
  ],
  [
    'torchrun',
    'E1129 08:33:24.490000 2 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: 1) local_rank: 0\n' +
      'Traceback (most recent call last):\n  File "/v/bin/torchrun", line 8, in <module>\n    sys.exit(main())\n' +
      `torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n${'='.repeat(60)}\ntrain.py FAILED\n` +
      `Root Cause (first observed failure):\n[0]:\n  exitcode  : 1 (pid: 8)\n${'='.repeat(60)}\n`,
  ],
]
for (const [launcher, words] of LAUNCHERS) {
  const testHere = launcher === 'accelerate' ? test : inSweep
  testHere(`a failure below ${launcher} is told by the error of the program`, async () => {
    const trainer = `
process.stderr.write(\`[rank0]: Traceback (most recent call last):
[rank0]:   File "train.py", line 3, in <module>
[rank0]: PermissionError: [Errno 30] Read-only file system: '/usr/x'
\`)
process.stderr.write(${JSON.stringify(words)})
process.exitCode = 1`
    await using rig = await trainerRig({ core: { trainer } })

    const { events } = await rig.run(['core', '--json'])

    const { message } = events.find(it => it.event === 'job.fail')!
    assert.match(message, `its error was "PermissionError: [Errno 30] Read-only file system: '/usr/x'"`)
  })
}

test('the live list shows what a training says as a bar of its own, until it says no more', async () => {
  const list = new LiveList()
  const task = { title: '', output: '', skip() {} }
  const outputs: string[] = []

  await list.follow(task, 'core', async () => {
    list.progress('core', { line: 'loss 0.5', told: { share: 0.42, secondsLeft: 185 } })
    outputs.push(task.output)
    list.progress('core', { told: undefined })
    outputs.push(task.output)
  })

  assert.equal(outputs, ['says ████████░░░░░░░░░░░░ 42 %, about 3 min 05 s left\n> loss 0.5', '> loss 0.5'])
  assert.is(task.output, '')
})

test.run()
