import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { quote } from 'zx/core'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { mountSmallDisk } from '../support/own-disk.ts'
import { programOf, root } from '../support/places.ts'
import { publishes, type Rig, survivors, trainerRig, untilEvent } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { onTerminal } from '../support/terminal.ts'
import { inSweep, test } from '../support/test.ts'

const MIB = 2 ** 20
const isRoot = process.getuid?.() === 0
const canSandbox = useSandbox('core', 'auto')
const asRoot = skipUnless(test, isRoot, 'needs root')
const asRootInSweep = skipUnless(inSweep, isRoot, 'needs root')
const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', '--']
const isReadable =
  isRoot &&
  spawnSync('setpriv', [...nobody, 'test', '-r', join(root, 'node_modules/tsx/package.json')], { cwd: '/' })
    .status === 0
/** The whole way, by the commands that are told. */
const asOwner = skipUnless(inSweep, isReadable, 'needs root and a project that others can read')
const canHide = isRoot && existsSync('/usr/bin/bwrap')
const needsHiding = 'needs root and bubblewrap'
const hidingSandbox = skipUnless(inSweep, canHide, needsHiding)
const faketime = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1'
const withFaketime = skipUnless(inSweep, existsSync(faketime), 'needs the Debian package faketime')

/** The prefix that puts another program in the place of bwrap. */
function bwrapIs(file: string): string[] {
  return ['unshare', '-m', 'sh', '-c', `mount --bind ${file} /usr/bin/bwrap && exec "$0" "$@"`]
}

asRoot('free space below the need ends with 3 and both figures; no training is started', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 3072 } })
  using _disk = mountSmallDisk(rig, 80)
  const state = rig.path('models', 'core', 'work', 'optimizer.state')
  mkdirSync(dirname(state), { recursive: true })
  writeFileSync(state, 'to resume from')

  const { exitCode, events } = await rig.run(['--json'])

  assert.is(exitCode, 3)
  const [fail] = events.filter(it => it.event === 'job.fail')
  assert.match(fail!.message, /(80(\.0)?|79\.\d) MiB free/)
  assert.match(fail!.message, /128 MiB needed/)
  assert.not(events.some(it => it.event === 'train.start'))
  assert.ok(existsSync(state), 'nothing is lost')
})

asRootInSweep(
  'a disk that holds less than the quota is a warning, and becomes the limit of the run',
  async () => {
    await using rig = await trainerRig({ core: { maxDiskMb: 3072 } })
    using _disk = mountSmallDisk(rig, 300)

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    assert.ok(
      events.some(it => it.event === 'warning' && /holds less than the quota of 3072 MiB/.test(it.message)),
    )
    const [preflight] = events.filter(it => it.event === 'storage.usage')
    assert.ok(preflight!.limitBytes > 230 * MIB && preflight!.limitBytes <= 236 * MIB)
  },
)

asRootInSweep(
  'a training that outgrows a disk smaller than its quota is no violation, and leaves room for the next',
  async () => {
    const trainer = `for (let n = 0; ; n++) { fs.appendFileSync(dir + '/part', Buffer.alloc(2 ** 20)); await sleep(5) }`
    await using rig = await trainerRig({ core: { maxDiskMb: 3072, trainer } })
    using _disk = mountSmallDisk(rig, 300)

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 3)
    const [fail] = events.filter(it => it.event === 'job.fail')
    assert.match(
      fail!.message,
      /^Stopped core: the disk holds less than its quota, \d+(\.\d)? MiB free on .* of 2\d\d/,
    )
    assert.not(events.some(it => it.event === 'quota.exceeded'))
    assert.not(existsSync(rig.path('models', 'core', 'work', 'part')))
  },
)

asRootInSweep('other programs filling the disk are named as the reason, and not the job', async () => {
  const trainer = `for (let n = 0; ; n++) { fs.writeFileSync(dir + '/part', Buffer.alloc(2 ** 20)); await sleep(20) }`
  await using rig = await trainerRig({ core: { maxDiskMb: 3072, trainer } })
  using _disk = mountSmallDisk(rig, 300)
  const run = rig.start(['core', '--json'])
  await until('the training writes', () => existsSync(rig.path('models', 'core', 'work', 'part')))

  writeFileSync(join(rig.modelsDir, 'capture.pcap'), Buffer.alloc(260 * MIB))
  const { exitCode, events } = await run.ended

  assert.is(exitCode, 3)
  const [fail] = events.filter(it => it.event === 'job.fail')
  assert.match(fail!.message, /other programs fill the disk/)
  assert.not(events.some(it => it.event === 'quota.exceeded'))
  assert.equal(survivors(rig), [])
})

inSweep(
  'a quota that published models alone fill is refused before the training, with the shortfall',
  async () => {
    await using rig = await trainerRig({ core: { maxDiskMb: 2 } })
    await rig.run(['core'])
    writeFileSync(
      join(rig.modelsDir, 'core', 'second.onnx'),
      Buffer.concat([readFileSync(rig.path('fixture.onnx')), field(3 * MIB)]),
    )

    const { exitCode, events } = await rig.run(['core', '--retrain', '--json'])

    assert.is(exitCode, 2)
    const [exceeded] = events.filter(it => it.event === 'quota.exceeded')
    assert.match(exceeded!.message, /Model too large for quota.*MiB/)
    assert.not(events.some(it => it.event === 'train.start'))
    assert.ok(
      existsSync(join(rig.modelsDir, 'core', 'core.onnx')) &&
        existsSync(join(rig.modelsDir, 'core', 'second.onnx')),
    )
  },
)

inSweep(
  'a training that prints very much, without newlines and with escapes, costs neither memory nor disk',
  async () => {
    const trainer = `
const chunk = Buffer.from(('x'.repeat(100) + '\\x1b[2J\\x07').repeat(10_000))
for (let n = 0; n < 300; n++) fs.writeSync(1, chunk.subarray(0, 2 ** 20))
fs.writeSync(1, '\\nthe end\\n'); ${publishes}`
    await using rig = await trainerRig({ core: { trainer } })
    const run = rig.start(['core', '--json'])
    let peakKib = 0
    const sampling = setInterval(() => {
      try {
        peakKib = Math.max(
          peakKib,
          Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${run.pid}/status`, 'utf8'))?.[1] ?? 0),
        )
      } catch {}
    }, 20)

    const { exitCode, events, stdout } = await run.ended
    clearInterval(sampling)

    assert.is(exitCode, 0)
    assert.ok(peakKib > 10_000 && peakKib < 120 * 1024, `${peakKib} KiB at most`)
    assert.ok(events.some(it => it.event === 'train.output' && it.line === 'the end'))
    assert.ok(stdout.length < 100_000)
    const log = join(rig.modelsDir, '.trainer', 'core.log')
    assert.ok(statSync(log).size + statSync(`${log}.1`).size <= 8 * MIB)
    assert.not.match(readFileSync(log, 'latin1'), /[\x00-\x09\x0b-\x1f]/)
  },
)

/** A rig whose core is trained, with its journal: for tests that put both back. */
let journaled: Promise<{ rig: Rig; file: string; journal: Buffer }> | undefined
const journaledRig = () => (journaled ??= trainJournaled())
test.after(async () => (await journaled)?.rig[Symbol.asyncDispose]())

async function trainJournaled(): Promise<{ rig: Rig; file: string; journal: Buffer }> {
  const rig = await trainerRig()
  await rig.run(['core'])
  const file = join(rig.modelsDir, '.trainer', 'events.jsonl')
  return { rig, file, journal: readFileSync(file) }
}

for (const [what, spoil] of [
  ['truncated in a line', (file: string) => truncateSync(file, statSync(file).size - 20)],
  ['garbage', (file: string) => writeFileSync(file, Buffer.alloc(5000, 0xff))],
  ['huge', (file: string) => truncateSync(file, 10 * 2 ** 30)],
  ['a folder', (file: string) => spawnSync('sh', ['-c', 'rm "$1" && mkdir "$1"', 'sh', file])],
] as const) {
  inSweep(`a journal that is ${what} harms no model, and the next run is journaled whole`, async () => {
    const { rig, file, journal } = await journaledRig()
    const before = readFileSync(join(rig.modelsDir, 'core', 'core.onnx'))
    for (const earlier of [file, `${file}.1`]) rmSync(earlier, { recursive: true, force: true })
    writeFileSync(file, journal)
    spoil(file)

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    assert.equal(rig.events().slice(-events.length), events)
    assert.equal(readFileSync(join(rig.modelsDir, 'core', 'core.onnx')), before)
  })
}

withFaketime(
  'a wall clock that jumps a day back or forth causes no time-out, no pruning, no odd duration',
  async () => {
    const trainer = `fs.writeFileSync(dir + '/epoch-1.checkpoint', 'x'); await sleep(2500); ${publishes}`
    const jumpTo = async (jump: string) => {
      await using rig = await trainerRig({ core: { trainer, timeoutMinutes: 1 } })
      const clock = rig.path('clock')
      writeFileSync(clock, '+0')
      const env = {
        LD_PRELOAD: faketime,
        FAKETIME_TIMESTAMP_FILE: clock,
        FAKETIME_NO_CACHE: '1',
        DONT_FAKE_MONOTONIC: '1',
      }
      const run = rig.start(['core', '--json'], { env })
      await until('the training runs', () =>
        existsSync(rig.path('models', 'core', 'work', 'epoch-1.checkpoint')),
      )

      writeFileSync(clock, jump)
      const { exitCode, events } = await run.ended

      assert.is(exitCode, 0)
      const [start, done] = [events[0]!, events.at(-1)!]
      const apparentHours = (Date.parse(done.time) - Date.parse(start.time)) / 3_600_000
      assert.ok(Math.abs(apparentHours) > 20, `the clock jumped ${apparentHours} h`)
      assert.ok(done.event === 'run.done' && done.seconds > 2 && done.seconds < 60)
      assert.not(events.some(it => it.event === 'storage.prune'))
    }
    await Promise.all(['-1d', '+1d'].map(jumpTo))
  },
)

inSweep('a reader that leaves (| head) does not stop the work', async () => {
  await using rig = await trainerRig()
  const script = 'set -o pipefail; "$@" | head -n 1; echo "$?"'
  const places = ['--quotas', rig.path('quotas.json'), '--models-dir', rig.modelsDir]
  const program = [process.execPath, ...programOf('tasks.ts'), ...places, 'core']

  const { stdout } = spawnSync('bash', ['-c', script, 'bash', ...program], { cwd: root })

  const lines = String(stdout).trim().split('\n')
  assert.match(lines[0]!, 'ransomeye-trainer')
  assert.is(lines.at(-1), '0')
  assert.ok(existsSync(rig.path('models', 'core', 'core.onnx')))
})

inSweep(
  'no name that a training gives commands the terminal: of a model, a metric, a checkpoint',
  async () => {
    const evil = String.raw`'\x1b]0;evil\x07\x9b31m'`
    const leaves = (content: string) => `
fs.writeFileSync(dir + '/' + ${evil} + '.tmp', Buffer.alloc(25 * 2 ** 20))
fs.writeFileSync(dir + '/' + ${evil} + '2.onnx', 'garbage')
fs.writeFileSync(dir + '/' + ${evil} + '.onnx', ${content})
fs.writeFileSync(dir + '/metadata.json', JSON.stringify({ performance_metrics: { [${evil}]: 1 } }))`
    await using rig = await trainerRig({
      core: { maxDiskMb: 40, trainer: leaves('fs.readFileSync(fixture)') },
      dpi: { maxDiskMb: 40, trainer: leaves("'garbage'") },
    })

    const shown = ['core', 'core', 'dpi'].map(job =>
      onTerminal(rig, 'stty cols 100; export TERM=xterm', [job]),
    )

    assert.match(shown[0]!, /published .*evil/)
    assert.match(shown[0]!, /^holdout +\\x1b\]0;evil/m)
    assert.match(shown[1]!, /skipped, .*evil/)
    assert.match(shown[2]!, /no valid model:\s+\S+evil/)
    assert.not.match(shown.join(''), /\x1b\]|\x07|\x9b/)
  },
)

inSweep('a terminal without columns, and one that is dumb, get a line an event', async () => {
  await using rig = await trainerRig()

  const [zero, dumb, wide] = [
    onTerminal(rig, 'stty cols 0', ['core']),
    onTerminal(rig, 'stty cols 100; export TERM=dumb', ['dpi']),
    onTerminal(rig, 'stty cols 100; export TERM=xterm NO_COLOR=1', ['agent']),
  ]

  assert.match(zero, /Z core: done in/)
  assert.match(dumb, /Z dpi: done in/)
  assert.match(wide, /agent.*KiB of 20 MiB/)
  assert.not.match(wide, /\x1b\[3\dm/)
})

test('a models folder that cannot be made ends with 3 and names it', async () => {
  await using rig = await trainerRig()
  writeFileSync(rig.path('file'), '')

  const { exitCode, stderr } = await rig.run(['--models-dir', rig.path('file', 'models')])

  assert.is(exitCode, 3)
  assert.ok(stderr.includes(rig.path('file', 'models')), stderr)
})

asRoot('a models folder that is not writable for its user ends with 3 and names it', async () => {
  await using rig = await trainerRig()
  mkdirSync(rig.modelsDir, { mode: 0o755 })
  spawnSync('chmod', ['-R', 'a+rX', rig.dir])

  const { exitCode, stderr } = await rig.run([], { prefix: ['setpriv', ...nobody] })

  assert.is(exitCode, 3)
  assert.ok(stderr.includes(rig.modelsDir) && /permission denied/i.test(stderr), stderr)
})

asRootInSweep("root trains and prunes in no other user's folder, and may look at it", async () => {
  await using rig = await trainerRig()
  mkdirSync(rig.modelsDir)
  spawnSync('chown', ['nobody', rig.modelsDir])

  const dry = await rig.run(['--dry-run'])
  const refused = await rig.run(['core'])
  const pruning = await rig.run(['core'], { script: 'scripts/prune.ts' })

  assert.equal([dry.exitCode, refused.exitCode, pruning.exitCode], [0, 64, 64])
  for (const { stderr } of [refused, pruning]) assert.match(stderr, /run: runuser -u nobody -- /)
})

asOwner(
  "root works in no other user's folder, and says by what command to; what root made there is explained",
  async () => {
    await using rig = await trainerRig({ core: { sandbox: 'off' } })
    mkdirSync(join(rig.modelsDir, '.trainer'), { recursive: true })
    spawnSync('chown', ['-R', 'nobody', rig.modelsDir])
    spawnSync('chmod', ['-R', 'a+rX', rig.dir])
    const env = { RANSOMEYE_MODELS_DIR: rig.modelsDir }
    const places = `--quotas ${rig.path('quotas.json')}`

    const dry = await rig.run(['--dry-run'])
    const refused = await rig.run(['core', '--json'], { env, withModelsDir: false, byTsx: true })
    const pruning = await rig.run(['core'], { script: 'scripts/prune.ts', byTsx: true })

    assert.equal([dry.exitCode, refused.exitCode, pruning.exitCode], [0, 64, 64])
    assert.match(pruning.stderr, ` scripts/prune.ts ${places} --models-dir ${rig.modelsDir} core\n`)
    const command = /run: (.*)\n$/.exec(refused.stderr)![1]!
    assert.is(
      command,
      `runuser -u nobody -- node --import tsx tasks.ts ${places} core --json --models-dir ${rig.modelsDir}`,
    )
    const lock = join(rig.modelsDir, '.trainer', 'lock')
    writeFileSync(lock, '', { mode: 0o640 })
    const byOwner = () => spawnSync('sh', ['-c', command], { cwd: root, encoding: 'utf8' })
    const locked = byOwner()
    const remedy = /Cannot lock .*EACCES.*; to get it back, as root: (chown .*)\n/.exec(locked.stderr)?.[1]
    assert.is(locked.status, 3)
    assert.is(spawnSync('sh', ['-c', remedy!]).status, 0, locked.stderr)
    const trained = byOwner()
    assert.is(trained.status, 0, trained.stderr)
    assert.is(statSync(join(rig.modelsDir, 'core', 'core.onnx')).uid, statSync(rig.modelsDir).uid)
  },
)

inSweep(
  'links where folders or the lock should be are refused, and nothing behind them is touched',
  async () => {
    for (const name of ['.trainer/lock', '.trainer', 'core', 'core/work']) {
      await using rig = await trainerRig()
      mkdirSync(rig.path('precious'))
      writeFileSync(rig.path('precious', 'old.tmp'), 'kept')
      mkdirSync(dirname(join(rig.modelsDir, name)), { recursive: true })
      symlinkSync(rig.path('precious'), join(rig.modelsDir, name))

      const { exitCode, stdout, stderr } = await rig.run(['core'])

      assert.is(exitCode, 3, name)
      assert.match(stdout + stderr, /symbolic link/)
      assert.is(readFileSync(rig.path('precious', 'old.tmp'), 'utf8'), 'kept')
    }
  },
)

inSweep('a run trains with an empty environment, as early boot scripts have it', async () => {
  await using rig = await trainerRig()

  const { exitCode, stdout } = await rig.run(['core'], { prefix: ['env', '-i'] })

  assert.is(exitCode, 0, stdout)
})

test('NODE_OPTIONS, LD_PRELOAD and PATH of the caller do not reach the training, unless quotas.json says so', async () => {
  const trainer = `fs.writeFileSync(dir + '/env.json', JSON.stringify(process.env)); ${publishes}`
  const env = {
    NODE_OPTIONS: '--no-warnings',
    LD_PRELOAD: '/nonexistent.so',
    PATH: `/hostile:${process.env.PATH}`,
    SECRET: 'x',
  }
  await using rig = await trainerRig({
    core: { trainer },
    dpi: { trainer, env: { NODE_OPTIONS: '--no-deprecation' } },
  })

  const { exitCode } = await rig.run(['core', 'dpi'], { env })

  assert.is(exitCode, 0)
  const [core, dpi] = ['core', 'dpi'].map(job =>
    JSON.parse(readFileSync(rig.path('models', job, 'work', 'env.json'), 'utf8')),
  )
  assert.equal([core.NODE_OPTIONS, core.LD_PRELOAD, core.SECRET], [undefined, undefined, undefined])
  assert.not.match(core.PATH, 'hostile')
  assert.is(dpi.NODE_OPTIONS, '--no-deprecation')
})

test('the training has its own process group, no stdin, and every home of temporary data and caches inside its folder', async () => {
  const trainer = `
const { HOME, XDG_CACHE_HOME, HF_HOME, TORCH_HOME, TRITON_CACHE_DIR, TORCHINDUCTOR_CACHE_DIR, NUMBA_CACHE_DIR, MPLCONFIGDIR } = process.env
fs.writeFileSync(process.env.TMPDIR + '/seen', '')
fs.writeFileSync(dir + '/facts.json', JSON.stringify({ cwd: process.cwd(), stdin: fs.readFileSync(0, 'utf8'), home: HOME,
  temporary: [process.env.TMP, process.env.TEMP, dir + '/tmp', '/tmp'].map(it => fs.existsSync(it + '/seen')),
  caches: [XDG_CACHE_HOME, HF_HOME, TORCH_HOME, TRITON_CACHE_DIR, TORCHINDUCTOR_CACHE_DIR, NUMBA_CACHE_DIR, MPLCONFIGDIR],
  told: ['JOB', 'MAX_DISK_MB', 'OUTPUT_DIR', 'MODEL_DIR'].map(name => process.env['RANSOMEYE_' + name]) })); ${publishes}`
  await using rig = await trainerRig({ core: { trainer } })

  await rig.run(['core'])

  const work = rig.path('models', 'core', 'work')
  const facts = JSON.parse(readFileSync(join(work, 'facts.json'), 'utf8'))
  assert.is(facts.cwd, rig.dir)
  assert.is(facts.stdin, '')
  assert.equal(facts.temporary, [true, true, true, canSandbox])
  assert.is(facts.home, `${work}/home`)
  assert.is(facts.caches[0], `${work}/cache`)
  assert.ok(facts.caches.every((cache: string) => `${cache}/`.startsWith(`${work}/cache/`)))
  assert.equal(facts.told, ['core', '20', work, rig.path('models', 'core')])
})

test('placeholders are filled in, in a command that has any; otherwise the two options are appended', async () => {
  const trainer = `fs.writeFileSync(dir + '/args.json', JSON.stringify(process.argv.slice(2))); ${publishes}`
  const train = ['node', 'core.mjs', '--out={outputDir}', '{modelDir}', '{maxDiskMb}m', '$HOME; `id` {other}']
  await using rig = await trainerRig({ core: { trainer, train } })

  await rig.run(['core'])

  const dir = rig.path('models', 'core')
  const args = JSON.parse(readFileSync(join(dir, 'work', 'args.json'), 'utf8'))
  assert.equal(args, [`--out=${dir}/work`, dir, '20m', '$HOME; `id` {other}'])
})

for (const [instead, reason] of [
  ['/dev/null', /: bwrap is not installed; install the Debian package bubblewrap, or set it to "auto"$/],
  ['/bin/false', /: bwrap ended with exit code 1; [^;]+, or set it to "auto"$/],
] as const) {
  hidingSandbox(`sandbox "required" refuses to run with ${instead} in the place of the sandbox`, async () => {
    await using rig = await trainerRig({ core: { sandbox: 'required' } })

    const { exitCode, events } = await rig.run(['core', '--json'], { prefix: bwrapIs(instead) })

    assert.is(exitCode, 78)
    const [failure] = events.filter(it => it.event === 'job.fail')
    assert.match(failure!.message, 'jobs.core.sandbox is "required", but the sandbox does not work: ')
    assert.match(failure!.message, reason)
    assert.not(events.some(it => it.event === 'train.start'))
  })
}

hidingSandbox('a run says once, in the words of bwrap, why there is no sandbox, and goes on', async () => {
  await using rig = await trainerRig()
  const words = 'bwrap: setting up uid map: Permission denied'
  writeFileSync(rig.path('bwrap'), `#!/bin/sh\necho "${words}" >&2\nexit 1\n`, { mode: 0o755 })

  const { exitCode, events } = await rig.run(['core', 'dpi', '--json'], {
    prefix: bwrapIs(rig.path('bwrap')),
  })

  assert.is(exitCode, 0)
  const warnings = events.flatMap(it => (it.event === 'warning' ? [it.message] : []))
  assert.is(warnings.length, 1)
  assert.match(
    warnings[0]!,
    `trainings run without the sandbox, so nothing bounds what they write outside their folders: ${words}; `,
  )
  const guarantees = events.flatMap(it => (it.event === 'job.start' ? [it.guarantee] : []))
  assert.equal(guarantees, ['watch', 'watch'])
})

inSweep('a run whose jobs have no use for the sandbox says nothing of it', async () => {
  await using rig = await trainerRig({ core: { sandbox: 'off' } })

  const { events } = await rig.run(['core', '--json'])

  assert.not(events.some(it => it.event === 'warning'))
})

/** The prefix that makes bwrap a script: it has `$calls`, a file with a line for each call; `real "$@"` is bwrap. */
function behindBwrap(rig: Rig, script: string): string[] {
  copyFileSync('/usr/bin/bwrap', rig.path('bwrap'))
  const text = `#!/bin/bash
calls=${rig.path('calls')}
echo "$*" >> "$calls"
real() { exec ${rig.path('bwrap')} "$@"; }
${script}`
  writeFileSync(rig.path('bwrap.sh'), text, { mode: 0o755 })
  return bwrapIs(rig.path('bwrap.sh'))
}

const everyOther = '[ $(($(wc -l < "$calls") % 2)) = 1 ]'
const isTraining = '[[ "$*" == *--chdir* ]]'
const refusal = `bwrap: Can't bind mount /oldroot/ on /newroot/: No space left on device`

for (const { when, shared, fails, trainer, calls, reasons } of [
  { when: 'every other time', shared: inSweep, fails: everyOther, trainer: publishes, calls: 4, reasons: [] },
  {
    when: 'once before a training that fails by itself',
    shared: inSweep,
    fails: everyOther,
    trainer: 'process.exit(3)',
    calls: 4,
    reasons: ["core's training ended with exit code 3; it printed nothing; its command is: node core.mjs"],
  },
  {
    when: 'whenever a training is to start',
    shared: test,
    fails: isTraining,
    trainer: publishes,
    calls: 6,
    reasons: [`Cannot start the training: ${refusal}`],
  },
]) {
  skipUnless(
    shared,
    canHide,
    needsHiding,
  )(`a sandbox that fails ${when} is made anew, within reason`, async () => {
    await using rig = await trainerRig({ core: { sandbox: 'required', trainer } })
    const prefix = behindBwrap(rig, `if ${fails}; then echo ${quote(refusal)} >&2; exit 1; fi; real "$@"`)

    const { exitCode, events } = await rig.run(['core', '--json'], { prefix })

    const told = (event: string) =>
      events.flatMap(it => (it.event === event && 'message' in it ? [it.message] : []))
    assert.equal([exitCode, told('job.fail')], [reasons.length, reasons])
    assert.is(readFileSync(rig.path('calls'), 'utf8').match(/\n/g)?.length, calls)
    const warning = `the sandbox failed and is set up again: ${refusal}`
    assert.equal(told('warning'), Array(reasons[0]?.includes(refusal) ? 4 : 1).fill(warning))
    assert.equal(survivors(rig), [])
  })
}

for (const { what, ends, exitCode, timeoutMinutes } of [
  { what: 'interrupted', ends: 'interrupted by SIGTERM', exitCode: 143, timeoutMinutes: 60 },
  { what: 'late', ends: 'timed out', exitCode: 1, timeoutMinutes: 0.05 },
]) {
  hidingSandbox(`a training that is ${what} while its sandbox hangs is ended at once`, async () => {
    await using rig = await trainerRig({ core: { sandbox: 'required', timeoutMinutes } })
    const prefix = behindBwrap(rig, `if ${isTraining}; then exec sleep 60; fi; real "$@"`)
    const run = rig.start(['core', '--json'], { prefix })
    await until(
      'it hangs',
      () => existsSync(rig.path('calls')) && /--chdir/.test(readFileSync(rig.path('calls'), 'utf8')),
    )
    const startedMs = performance.now()

    if (exitCode === 143) run.child.kill('SIGTERM')
    const ended = await run.ended

    assert.ok(performance.now() - startedMs < 5000)
    assert.is(ended.exitCode, exitCode)
    assert.match(ended.stdout, ends)
    assert.equal(survivors(rig), [])
  })
}

inSweep('the run says which guarantee it has', async () => {
  await using rig = await trainerRig({ dpi: { sandbox: 'off' } })

  await rig.run(['core', 'dpi'])

  const guarantees = rig.events().flatMap(it => (it.event === 'job.start' ? [it.guarantee] : []))
  assert.is(guarantees[1], 'watch')
  if (existsSync('/usr/bin/bwrap')) assert.is(guarantees[0], 'watch+sandbox')
})

test('--every repeats: the second pass retrains, with quotas.json read again; SIGTERM ends the wait at once', async () => {
  await using rig = await trainerRig()
  const run = rig.start(['core', '--every', '1s', '--json'])
  await untilEvent(rig, 'run.wait')
  writeFileSync(rig.path('quotas.json'), readFileSync(rig.path('quotas.json'), 'utf8').replaceAll('20', '21'))
  await until('a retraining', () => rig.events().filter(it => it.event === 'train.start').length >= 2)
  await until('its end', () => rig.events().filter(it => it.event === 'run.wait').length >= 2)

  run.child.kill('SIGTERM')
  const { exitCode, events } = await run.ended

  assert.is(exitCode, 143)
  const limits = events.flatMap(it => (it.event === 'job.start' ? [it.limitBytes / MIB] : []))
  assert.equal(limits.slice(0, 2), [20, 21])
})

inSweep('--every says once that it was interrupted, in a pass or between two', async () => {
  await using rig = await trainerRig({ core: { trainer: 'await sleep(60_000)' } })
  const training = rig.start(['core', '--every', '1h'])
  await untilEvent(rig, 'train.start')
  training.child.kill('SIGINT')
  const inPass = await training.ended
  const waiting = rig.start(['dpi', '--every', '1h'])
  await untilEvent(rig, 'run.wait')
  waiting.child.kill('SIGINT')
  const between = await waiting.ended

  assert.equal([inPass.exitCode, between.exitCode], [130, 130])
  assert.is(inPass.stderr, '')
  assert.match(inPass.stdout, /WARNING interrupted by SIGINT.*\n$/)
  assert.is(between.stderr, 'ransomeye-trainer: interrupted by SIGINT\n')
})

inSweep('--every says when it tries again what could not even start', async () => {
  await using rig = await trainerRig()
  const run = rig.start(['core', '--every', '1s', '--json'])
  await untilEvent(rig, 'run.wait')
  writeFileSync(rig.path('quotas.json'), '{')
  await until('the fault is told', () => /not JSON/.test(run.output()))
  const before = rig.events().length

  const next = await until('the next pass is told', () =>
    /"run\.wait".*\n.*"run\.wait".*to try again core/s.exec(run.output()),
  )
  run.child.kill('SIGTERM')
  const { exitCode, events } = await run.ended

  assert.ok(next)
  assert.is(exitCode, 143)
  assert.is(rig.events().length, before)
  assert.ok(events.some(it => it.event === 'run.wait' && it.level === 'info' && it.seconds === 1))
})

inSweep('--every survives a failed pass', async () => {
  const trainer = `if (!fs.existsSync(dir + '/second')) { fs.writeFileSync(dir + '/second', ''); process.exit(1) }\n${publishes}`
  await using rig = await trainerRig({ core: { trainer } })
  const run = rig.start(['core', '--every', '1s', '--json'])

  await untilEvent(rig, 'model.publish')
  run.child.kill('SIGTERM')
  const { events } = await run.ended

  const codes = events.flatMap(it => (it.event === 'run.done' ? [it.exitCode] : []))
  assert.equal(codes.slice(0, 2), [1, codes[1] === 143 ? 143 : 0])
})

inSweep('--every retrains what a failed retraining left, and only that', async () => {
  const fails = `
const passes = fs.existsSync(dir + '/passes') ? fs.readFileSync(dir + '/passes', 'utf8').length : 0
fs.writeFileSync(dir + '/passes', 'x'.repeat(passes + 1))
if (passes === 1) process.exit(7)
${publishes}`
  await using rig = await trainerRig({ dpi: { trainer: fails } }, { maxLoadPerCore: 1000 })
  const run = rig.start(['core', 'dpi', '--every', '1s', '--json'])

  await until('the third pass', () => rig.events().filter(it => it.event === 'run.done').length >= 3)
  run.child.kill('SIGTERM')
  const { events } = await run.ended

  const passes = [...new Set(events.map(it => it.run))]
    .slice(0, 3)
    .map(id => events.filter(it => it.run === id))
  const failures = events.flatMap(it =>
    it.event === 'job.fail' && it.code !== 'sigterm' ? [it.message] : [],
  )
  assert.is(failures.length, 1, failures.join('\n'))
  const trained = passes.map(pass => pass.flatMap(it => (it.event === 'train.start' ? [it.job] : [])))
  assert.equal(trained, [['core', 'dpi'], ['core', 'dpi'], ['dpi']])
  const codes = passes.flatMap(pass => pass.flatMap(it => (it.event === 'run.done' ? [it.exitCode] : [])))
  assert.equal(codes, [0, 1, 0])
})

inSweep(
  'between jobs a run with --max-wait waits for a quiet machine, then goes on and says so',
  async () => {
    await using rig = await trainerRig({}, { maxLoadPerCore: 0.000001 })

    const { exitCode, events } = await rig.run(['core', 'dpi', '--max-wait', '1s', '--json'])

    assert.is(exitCode, 0)
    const about = events.filter(it => it.event === 'run.wait' || it.event === 'warning')
    assert.equal(
      about.map(it => [it.event, 'job' in it && it.job]),
      [
        ['run.wait', 'dpi'],
        ['warning', 'dpi'],
      ],
    )
  },
)

/** A length-delimited field that no ONNX reader knows: weight without meaning. */
function field(bytes: number): Buffer {
  const length: number[] = []
  for (let rest = bytes; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) {
      length.push(rest)
      break
    }
    length.push((rest % 128) + 128)
  }
  return Buffer.concat([Buffer.from([0xfa, 0x3f, ...length]), Buffer.alloc(bytes)]) // field 1023
}

asRootInSweep(
  'a models folder on whose place a disk is missing is told by the run and by status',
  async () => {
    await using rig = await trainerRig()
    writeFileSync(rig.path('fstab'), `/dev/no-such-disk ${rig.dir} ext4 defaults 0 2\n`)
    const place = `mount --bind ${rig.path('fstab')} /etc/fstab && exec "$@"`
    const prefix = ['unshare', '--mount', 'sh', '-c', place, 'sh']

    const run = await rig.run(['core'], { prefix })
    const status = await rig.run([], { script: 'scripts/status.ts', prefix })

    assert.is(run.exitCode, 0)
    assert.match(
      run.stdout,
      `WARNING /etc/fstab has a filesystem for ${rig.dir}, and nothing is mounted there`,
    )
    assert.match(
      status.stdout.replaceAll(/\s+/g, ' '),
      'nothing is mounted where /etc/fstab has one; mount that: mount -a',
    )
  },
)

test.run()
