import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { formatLine } from '../../lib/run/output.ts'
import { programOf, root } from '../support/places.ts'
import { trainerRig, untilEvent } from '../support/rig.ts'
import { onTerminal } from '../support/terminal.ts'
import { inSweep, test } from '../support/test.ts'

test('formatLine() begins with the time, and names the level where it is not ordinary, and the job', () => {
  const time = '2026-01-01T00:00:00.000Z'
  const warning = {
    time,
    level: 'warning',
    run: 'r',
    event: 'warning',
    job: 'core',
    message: 'careful',
  } as const
  const skip = { time, level: 'info', run: 'r', event: 'job.skip', job: 'dpi', reason: 'valid' } as const

  assert.is(formatLine(warning), `${time} WARNING core: careful`)
  assert.is(formatLine(skip), `${time} dpi: skipped: valid`)
  assert.is(formatLine({ ...warning, message: 'a\n\x1b[31m' }), `${time} WARNING core: a\\x0a\\x1b[31m`)
})

inSweep(
  'the reason of a failure is told once, on a terminal too, and in the journal with the end of the run',
  async () => {
    await using rig = await trainerRig({
      core: { trainer: "console.log('boom'); process.exitCode = 1" },
      dpi: { maxDiskMb: 1 },
    })
    mkdirSync(join(rig.modelsDir, 'dpi'), { recursive: true })
    writeFileSync(join(rig.modelsDir, 'dpi', 'big.bin'), Buffer.alloc(2 ** 21))

    const failed = await rig.run(['core'])
    const tooLarge = await rig.run(['dpi'])
    const shown = onTerminal(rig, 'stty cols 1000; export TERM=xterm NO_COLOR=1', ['core'])

    assert.is(failed.stdout.match(/last line was "boom"/g)?.length, 1)
    assert.match(
      failed.stdout,
      /ERROR core: failed: core's training ended.*\n.*ERROR core failed \(exit code 1\), after/,
    )
    assert.is(tooLarge.stdout.match(/Model too large for quota/g)?.length, 1)
    assert.match(tooLarge.stdout, /ERROR dpi: failed: see above\n.*ERROR dpi failed \(exit code 2\), after/)
    assert.is(shown.match(/last line was "boom"/g)?.length, 1, shown)
    assert.match(shown, /ERROR core failed \(exit code 1\), after/)
    const done = rig.events().find(it => it.event === 'run.done')
    assert.ok(done?.event === 'run.done' && done.message.includes('"boom"'))
  },
)

inSweep('lines that journald reads carry its priority, others do not', async () => {
  await using rig = await trainerRig({ core: { trainer: 'process.exitCode = 1' } })
  const run = (isJournald: boolean) => {
    const out = openSync(rig.path(`out-${isJournald}`), 'w')
    const { dev, ino } = fstatSync(out)
    const places = ['--quotas', rig.path('quotas.json'), '--models-dir', rig.modelsDir]
    const args = [...programOf('tasks.ts'), ...places]
    const env = { ...process.env, JOURNAL_STREAM: isJournald ? `${dev}:${ino}` : '1:1' }
    const child = spawn(process.execPath, args, { cwd: root, env, stdio: ['ignore', out, 'ignore'] })
    closeSync(out)
    return new Promise(resolve => child.once('exit', resolve)).then(() =>
      readFileSync(rig.path(`out-${isJournald}`), 'utf8'),
    )
  }

  const [read, ordinary] = [await run(true), await run(false)]

  assert.match(read, /^<6>2/)
  assert.match(read, /\n<3>\S+ ERROR core: failed/)
  assert.match(ordinary, /^2/)
})

inSweep('journald gets every line of a failure as an error, and an ordinary stop as none', async () => {
  await using rig = await trainerRig({ core: { trainer: 'await sleep(60_000)' } })
  writeFileSync(rig.path('bad.json'), JSON.stringify({ jobs: { core: { maxDiskMb: 0, train: [] } } }))
  const start = (name: string, ...args: string[]) => {
    const out = openSync(rig.path(name), 'w')
    const { dev, ino } = fstatSync(out)
    const env = { ...process.env, JOURNAL_STREAM: `${dev}:${ino}` }
    const argv = [...programOf('tasks.ts'), '--models-dir', rig.modelsDir, ...args]
    const child = spawn(process.execPath, argv, { cwd: root, env, stdio: ['ignore', out, out] })
    closeSync(out)
    return { child, ended: once(child, 'exit') }
  }

  await start('faults', '--quotas', rig.path('bad.json')).ended
  const { child, ended } = start('stop', '--quotas', rig.path('quotas.json'))
  await untilEvent(rig, 'train.start', 'core')
  child.kill('SIGTERM')
  const [exitCode] = await ended

  const faults = readFileSync(rig.path('faults'), 'utf8').trimEnd().split('\n')
  assert.ok(faults.length > 2, faults.join('\n'))
  for (const line of faults) assert.match(line, /^<3>/)
  assert.is(exitCode, 143)
  const stop = readFileSync(rig.path('stop'), 'utf8')
  assert.match(stop, /^<4>.* core: failed: interrupted by SIGTERM/m)
  assert.not.match(stop, /^<[0-3]>/m)
})

inSweep('what a guarantee bounds is told once, on a terminal too', async () => {
  await using rig = await trainerRig({ core: { sandbox: 'off' }, dpi: { sandbox: 'off' } })

  const { stdout } = await rig.run(['core', 'dpi'])
  const shown = onTerminal(rig, 'stty cols 1000; export TERM=xterm NO_COLOR=1', ['core', 'dpi', '--retrain'])

  assert.is(stdout.match(/watched and pruned/g)?.length, 1)
  assert.match(stdout, /core: start: .*; watch: watched and pruned.*\n/)
  assert.match(stdout, /dpi: start: .*; watch\n/)
  const atEnd = shown.slice(shown.lastIndexOf('day-1 check'))
  assert.is(atEnd.match(/watched and pruned/g)?.length, 1, atEnd)
})

inSweep(
  'a terminal shows what a run waits for between jobs and how long at most, beside a clock that goes',
  async () => {
    await using rig = await trainerRig({}, { maxLoadPerCore: 0.000001 })

    const shown = onTerminal(rig, 'stty cols 1000 rows 40; export TERM=xterm NO_COLOR=1', [
      'core',
      'dpi',
      '--max-wait',
      '3s',
    ])

    assert.match(shown, /dpi {2}00:0[12]\s+› > waiting 3\.0 s at most: the load of [\d.]+ is above 0\.00/)
    const atEnd = shown.slice(shown.lastIndexOf('day-1 check'))
    assert.match(atEnd, /after 3 s; going on/)
    assert.not.match(atEnd, /waiting/)
  },
)

test('lines on a terminal are broken between words', async () => {
  await using rig = await trainerRig()

  const shown = onTerminal(rig, 'stty cols 60; export TERM=dumb', ['core'])

  const tooLong = shown.split('\r\n').filter(line => line.length > 60 && line.trim().includes(' '))
  assert.equal(tooLong, [])
  assert.match(shown, /Z core: start:.*\r\n {2}\S/)
})

test.run()
