import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { jobNames } from '../../lib/quotas.ts'
import { readStatus, type Status } from '../../lib/reports/status.ts'
import { drawStatus } from '../../lib/reports/status-table.ts'
import { takeLock } from '../../lib/run/lock.ts'
import { findHolder } from '../../lib/run/lock-holders.ts'
import { readQuotas } from '../../lib/settings/quotas-file.ts'
import { checkUsage } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { journalLine, type Sketch } from '../support/journal.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { programOf, root } from '../support/places.ts'
import { readManifest, trainAndPublish } from '../support/publishing.ts'
import { publishes, type Rig, survivors, trainerRig, untilEvent } from '../support/rig.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const script = 'scripts/status.ts'
const waits = `await sleep(60_000)`
const canTrace = spawnSync('strace', ['-f', 'true']).status === 0
const traceTest = skipUnless(test, canTrace, 'needs strace (Debian package strace)')
const rootTest = skipUnless(inSweep, process.getuid?.() === 0, 'needs root')
const hasScript = spawnSync('script', ['--version']).status === 0
const terminalTest = skipUnless(inSweep, hasScript, 'needs script (Debian package bsdutils)')
const byNobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--']

function statusOf(rig: Rig): Promise<Status> {
  return readStatus(rig.modelsDir, readQuotas(rig.path('quotas.json')))
}

/** The same by the script. */
async function jsonOf(rig: Rig, prefix: string[] = []): Promise<Status> {
  const { exitCode, stdout, stderr } = await rig.run(['--json'], { script, prefix })
  assert.is(exitCode, 0, stderr)
  return JSON.parse(stdout)
}

/** Every file below a folder, with all that a write changes. */
function traceOf(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .sort()
    .map(name => {
      const { ino, size, mtimeMs, ctimeMs } = lstatSync(join(dir, name))
      return `${name} ${ino} ${size} ${mtimeMs} ${ctimeMs}`
    })
}

test('status shows each job: model, time, usage of the quota, checkpoints, prunable files, guarantee, result', async () => {
  const trainer = `${publishes}; for (const name of ['1.checkpoint', '2.checkpoint', '3.tmp']) fs.writeFileSync(dir + '/' + name, Buffer.alloc(2 ** 20, 1))`
  await using rig = await trainerRig({
    core: { maxDiskMb: 10, trainer, sandbox: 'off' },
    dpi: { sandbox: 'off' },
  })
  await rig.run(['core', 'dpi'])

  const { exitCode, stdout } = await rig.run([], { script })

  assert.is(exitCode, 0)
  const timeOf = (job: string) =>
    String(readManifest(join(rig.modelsDir, job)).metadata.trained_at)
      .slice(0, 16)
      .replace('T', ' ')
  assert.match(
    stdout,
    new RegExp(
      `^core +core\\.onnx +${timeOf('core')} +watch +done\nvalid +█░░░ 3\\.0/10 MiB +2, 2 MiB +3, 3 MiB$`,
      'm',
    ),
  )
  assert.match(
    stdout,
    new RegExp(
      `^dpi +dpi\\.onnx +${timeOf('dpi')} +watch +done\nvalid +░{4} [\\d.]+ KiB/20 MiB +none +none$`,
      'm',
    ),
  )
  assert.match(stdout, /^agent +- +- +- +-\nnot valid +░{4} 0 B\/20 MiB +none +none$/m)
  assert.match(stdout, /^agent is not valid: no model is published$/m)
  assert.match(
    stdout,
    /^not running; the last training run, of .* ended with exit\n {2}code 0: trained core, dpi;/m,
  )
})

inSweep('status of the jobs named shows no others', async () => {
  await using rig = await trainerRig()

  const text = await rig.run(['agent', 'core'], { script })
  const json = await rig.run(['dpi', '--json'], { script })

  assert.equal(text.stdout.match(/^(core|dpi|agent)\b(?! is)/gm), ['core', 'agent'])
  assert.equal(
    JSON.parse(json.stdout).jobs.map(({ job }: Status['jobs'][number]) => job),
    ['dpi'],
  )
})

inSweep('status --json has the figures in bytes and the times in ISO 8601', async () => {
  const trainer = `${publishes}; for (const name of ['1.tmp', '2.checkpoint']) fs.writeFileSync(dir + '/' + name, Buffer.alloc(8192, 1))`
  await using rig = await trainerRig({ core: { trainer } })
  await rig.run(['core'])

  const status = await jsonOf(rig)

  assert.equal(Object.keys(status), ['modelsDir', 'freeBytes', 'obstacle', 'running', 'lastRun', 'jobs'])
  assert.is(status.modelsDir, rig.modelsDir)
  assert.is(status.running, null)
  assert.equal(
    status.jobs.map(({ job }) => job),
    [...jobNames],
  )
  const [core] = status.jobs
  const done = rig.events().find(({ event }) => event === 'job.done')
  const { guarantee, lastResult, generations, ...rest } = core!
  assert.equal(rest, {
    job: 'core',
    models: ['core.onnx'],
    valid: true,
    reason: 'core.onnx as published',
    trainedAt: readManifest(join(rig.modelsDir, 'core')).metadata.trained_at,
    adopted: [],
    limitBytes: 20 * MIB,
    usedBytes: await checkUsage(join(rig.modelsDir, 'core')),
    checkpoints: { count: 1, bytes: 8192 },
    prunable: { count: 2, bytes: 16384 },
  })
  assert.equal(lastResult, { outcome: 'done', at: done?.time, reason: '' })
  assert.equal(generations, [
    {
      generation: 1,
      isCurrent: true,
      isWhole: true,
      trainedAt: rest.trainedAt,
      bytes: onnxModel().length,
      metrics: {},
    },
  ])
  assert.match(String(guarantee), /^watch/)
})

inSweep('status says what runs, at which step and since when, while the run holds the lock', async () => {
  await using rig = await trainerRig({ dpi: { trainer: waits } })
  const run = rig.start(['core', 'dpi'])
  await untilEvent(rig, 'train.start', 'dpi')

  const status = await statusOf(rig)
  const text = drawStatus(status, false)
  run.child.kill('SIGTERM')
  await run.ended
  const after = await statusOf(rig)

  const startedAt = rig.events()[0]!.time
  const stepSince = rig.events().find(it => it.event === 'train.start' && it.job === 'dpi')!.time
  const { running, lastRun, jobs } = status
  assert.equal(running, {
    pid: run.pid,
    elsewhere: null,
    startedAt,
    stepSince,
    job: 'dpi',
    step: 'training',
    progress: null,
  })
  assert.is(lastRun, null)
  assert.equal(
    jobs.map(({ lastResult }) => lastResult?.outcome),
    ['done', 'running', undefined],
  )
  assert.match(text, new RegExp(`^running: dpi, training, since .*, pid ${run.pid}$`, 'm'))
  assert.is(after.running, null)
  assert.is(after.lastRun?.exitCode, 143)
  assert.is(after.jobs[1]?.lastResult?.outcome, 'interrupted')
})

traceTest('status never writes, and never takes the lock, not even for a moment', async () => {
  await using rig = await trainerRig()
  await rig.run(['core'])
  const before = traceOf(rig.modelsDir)
  const trace = rig.path('trace')

  await jsonOf(rig, [
    'strace',
    '-f',
    '--seccomp-bpf',
    '-qq',
    '-s',
    '4096',
    '-o',
    trace,
    '-e',
    'trace=flock,fcntl,execve',
  ])

  assert.equal(traceOf(rig.modelsDir), before)
  const calls = readFileSync(trace, 'utf8')
  assert.match(calls, /execve\(.*status\.[jt]s/)
  assert.ok(!/flock|F_(OFD_)?SETLK/.test(calls), calls)
})

const traceTestInSweep = skipUnless(inSweep, canTrace, 'needs strace (Debian package strace)')

traceTestInSweep('status says in one line that the disk does not give its journal back', async () => {
  await using rig = await trainerRig()
  await rig.run(['core'])
  const journal = join(rig.modelsDir, '.trainer/events.jsonl')
  const prefix = ['strace', '-f', '-qq', '-o', '/dev/null', '-P', journal, '-e', 'inject=pread64:error=EIO']

  const { exitCode, stdout, stderr } = await rig.run([], { script, prefix })

  assert.is(exitCode, 3)
  assert.is(stdout, '')
  assert.match(stderr, /^.*Cannot read the journal: EIO: i\/o error, read; check that disk\n$/)
})

test('status makes no models folder where there is none', async () => {
  await using rig = await trainerRig()

  const { exitCode, stdout } = await rig.run([], { script })

  assert.is(exitCode, 0)
  assert.match(stdout, /models, not there yet$/m)
  assert.match(
    stdout,
    /^not running; no training is recorded here\. .*--models-dir; the\s+service's is \/var\/lib\/ransomeye\/models$/ms,
  )
  assert.ok(!existsSync(rig.modelsDir))
})

inSweep('status reads a torn journal, and says that a run was killed', async () => {
  await using rig = await trainerRig({ core: { trainer: `fs.writeFileSync(dir + '/here', ''); ${waits}` } })
  const run = rig.start(['core'])
  await until('the training runs', () => existsSync(rig.path('models', 'core', 'work', 'here')))
  run.child.kill('SIGKILL')
  await run.ended
  await until('the end of its training', () => !survivors(rig).length)
  // The watchdog lets go of the lock last.
  await until('the lock is free', () => !findHolder(join(rig.modelsDir, '.trainer')))
  appendFileSync(
    join(rig.modelsDir, '.trainer', 'events.jsonl'),
    '\0\xff{"time":"2026-\n[]\n{"event":"run.start","ti',
  )

  const { running, lastRun, jobs } = await statusOf(rig)

  assert.is(running, null)
  assert.is(lastRun?.exitCode, null)
  assert.is(jobs[0]?.lastResult?.outcome, 'cut off')
})

inSweep(
  'status gives the reason of a failure, and keeps to the last training when pruning fails after it',
  async () => {
    await using rig = await trainerRig({
      core: { trainer: `console.log('no \\x1b[31mdata'); process.exit(4)` },
    })
    await rig.run(['core'])
    const large = join(rig.modelsDir, 'agent')
    mkdirSync(large)
    writeFileSync(join(large, 'notes'), '')
    truncateSync(join(large, 'notes'), 21 * MIB)
    const pruning = await rig.run([], { script: 'scripts/prune.ts' })

    const text = drawStatus(await statusOf(rig), false)

    assert.is(pruning.exitCode, 2)
    assert.match(text, /^core +- +- .* failed\nnot valid /m)
    assert.match(text, /^agent +- +- +watch +-\nnot valid +█{4} 21\.0\/20 MiB/m)
    assert.match(
      text,
      /^agent uses more than its quota, and pruning cannot change that: raise its\n {2}maxDiskMb or/m,
    )
    assert.match(text, /^core failed at .*: core's training ended with exit code 4;/m)
    assert.match(text, /ended with exit\n {2}code 1: core's/m)
    assert.ok(!text.includes('\x1b'))
  },
)

test('status advises to prune only where that helps, and only when no run holds the lock', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 1 } })
  mkdirSync(join(rig.modelsDir, 'core', 'work'), { recursive: true })
  writeFileSync(join(rig.modelsDir, 'core', 'work', '1.checkpoint'), Buffer.alloc(2 * MIB, 1))
  const idle = await statusOf(rig)
  const running = {
    pid: 1,
    elsewhere: null,
    startedAt: null,
    stepSince: null,
    job: null,
    step: null,
    progress: null,
  }

  const texts = [idle, { ...idle, running }].map(status => drawStatus(status, false))
  const pruning = await rig.run(['core'], { script: 'scripts/prune.ts' })

  const advice = 'core uses more than its quota; the next run prunes it'
  assert.match(
    texts[0]!.replaceAll('\n ', ''),
    new RegExp(`^${advice}, or now: node --import tsx scripts/prune\\.ts core$`, 'm'),
  )
  assert.match(texts[1]!, new RegExp(`^${advice}$`, 'm'))
  assert.is(pruning.exitCode, 0)
})

inSweep('status tells of a training that could not start, as the metrics do', async () => {
  await using rig = await trainerRig()
  await rig.run(['core'])
  const { exitCode } = await rig.run(['core', '--quotas', rig.path('mistyped.json')])

  const { lastRun, jobs } = await statusOf(rig)

  assert.is(exitCode, 78)
  assert.is(lastRun?.exitCode, 78)
  assert.match(String(lastRun?.message), /^Cannot read the quotas file: .*mistyped\.json/)
  assert.is(jobs[0]?.lastResult?.outcome, 'done')
  assert.match(
    readFileSync(join(rig.modelsDir, '.trainer', 'metrics.prom'), 'utf8'),
    /^ransomeye_trainer_last_exit_code 78$/m,
  )
})

test('status tells pruning, and a lock that is held without a run, from a training', async () => {
  await using box = await sandbox({ '.trainer/lock': 1 })
  const journal = box.path('.trainer', 'events.jsonl')
  const write = (event: Sketch) => appendFileSync(journal, journalLine(event))
  const { release } = await takeLock(box.path('.trainer'))
  const stepOf = async () => (await readStatus(box.dir, readQuotas(join(root, 'quotas.json')))).running?.step
  try {
    write({ event: 'run.start', jobs: ['core'] })
    write({ event: 'storage.usage', job: 'core', usedBytes: 1, limitBytes: 2 })
    assert.is(await stepOf(), 'pruning')
    write({ event: 'run.done', exitCode: 0 })
    assert.is(await stepOf(), null)
  } finally {
    release()
  }
  assert.is(await stepOf(), undefined)
})

inSweep(
  'status says that a run waits for a quiet machine, and before which job, until the wait is over',
  async () => {
    await using rig = await trainerRig({ dpi: { trainer: waits } }, { maxLoadPerCore: 0.000001 })
    const run = rig.start(['core', 'dpi', '--max-wait', '4s'])
    await untilEvent(rig, 'run.wait')

    const waiting = await statusOf(rig)
    await untilEvent(rig, 'train.start', 'dpi')
    const training = await statusOf(rig)
    run.child.kill('SIGTERM')
    await run.ended

    const since = rig
      .events()
      .find(it => it.event === 'run.wait')!
      .time.slice(11, 19)
    assert.match(
      drawStatus(waiting, false),
      new RegExp(`^running: dpi, waiting for a quiet machine, since \\S+ ${since} UTC`, 'm'),
    )
    assert.equal([training.running?.job, training.running?.step], ['dpi', 'training'])
  },
)

test('status shows the other jobs when one cannot be measured', async () => {
  await using rig = await trainerRig()
  mkdirSync(rig.modelsDir)
  writeFileSync(join(rig.modelsDir, 'dpi'), 'not a folder')

  const { jobs } = await statusOf(rig)

  assert.equal(
    jobs.map(({ usedBytes }) => usedBytes),
    [0, null, 0],
  )
  assert.is(jobs[1]?.valid, null)
  assert.match(jobs[1]!.reason!, /dpi is a file, expected a folder; move it away$/)
})

test('status shows the other jobs when one is in a folder that this user cannot look into', async () => {
  await using rig = await trainerRig()
  for (const job of ['core', 'dpi'])
    await trainAndPublish(join(rig.modelsDir, job), { 'core.onnx': onnxModel() }, { globs: ['*.onnx'] })
  for (const folder of [rig.dir, rig.modelsDir, join(rig.modelsDir, 'dpi')]) chmodSync(folder, 0o755)
  chmodSync(join(rig.modelsDir, 'core'), 0o600)

  const { jobs } = await asNobody(() => statusOf(rig))
  chmodSync(join(rig.modelsDir, 'core'), 0o755)

  assert.equal(
    jobs.map(({ valid }) => valid),
    [null, true, false],
  )
  assert.match(jobs[0]!.reason, /^Cannot look into \S+\/core: EACCES/)
})

rootTest('status sees the run of another user, or says what it may not read', async () => {
  await using rig = await trainerRig({ core: { trainer: waits } })
  const run = rig.start(['core'])
  await untilEvent(rig, 'train.start')
  chmodSync(rig.dir, 0o755)
  execFileSync('chmod', ['-R', 'go+rX', rig.modelsDir])
  const lock = join(rig.modelsDir, '.trainer', 'lock')

  const readable = await jsonOf(rig, byNobody)
  chmodSync(lock, 0o600)
  const withoutPid = await jsonOf(rig, byNobody)
  chmodSync(rig.modelsDir, 0o700)
  const refused = await rig.run([], { script, prefix: byNobody })
  run.child.kill('SIGTERM')
  await run.ended

  assert.is(readable.running?.pid, run.pid)
  assert.is(readable.running?.step, 'training')
  assert.equal(withoutPid.running, { ...readable.running, pid: null })
  assert.is(refused.exitCode, 3)
  assert.match(refused.stderr, /^ransomeye-trainer: Cannot .*EACCES.*\n$/)
})

rootTest('status asks the kernel for the usage of a folder that is a filesystem of its own', async () => {
  await using rig = await trainerRig()
  await rig.run(['core'])
  const core = join(rig.modelsDir, 'core')
  const [before] = (await statusOf(rig)).jobs
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=10m', 'none', core])
  try {
    const fd = openSync(join(core, 'deleted'), 'w')
    writeFileSync(fd, Buffer.alloc(3 * MIB, 1))
    rmSync(join(core, 'deleted'))

    const { jobs } = await statusOf(rig)
    closeSync(fd)

    assert.is(await checkUsage(core), 0)
    assert.equal([jobs[0]?.usedBytes, jobs[0]?.limitBytes], [3 * MIB, 10 * MIB])
    assert.match(String(before?.guarantee), /^watch/)
    assert.is(jobs[0]?.guarantee, before?.guarantee?.replace('watch', 'kernel'))
  } finally {
    execFileSync('umount', [core])
  }
})

terminalTest('status is coloured on a terminal only, and there not with NO_COLOR', async () => {
  await using rig = await trainerRig()
  const argv = [process.execPath, ...programOf(script), '--models-dir', rig.modelsDir]
  const onTerminal = (env: Record<string, string>) =>
    spawnSync('script', ['-qec', argv.join(' '), '/dev/null'], {
      cwd: root,
      env: { ...process.env, TERM: 'xterm', ...env },
      encoding: 'utf8',
    }).stdout

  const coloured = onTerminal({ NO_COLOR: '' })
  const plain = onTerminal({ NO_COLOR: '1' })
  const piped = await rig.run([], { script, env: { TERM: 'xterm' } })

  assert.match(coloured, /\x1b\[31mnot valid\x1b\[0m/)
  for (const text of [plain, piped.stdout]) {
    assert.match(text, /^core /m)
    assert.ok(!text.includes('\x1b'))
  }
})

test('drawStatus() fits 80 columns with long names and reasons, and quotas up to 97 GiB', () => {
  const job: Status['jobs'][number] = {
    job: 'agent',
    models: [`${'long-name-'.repeat(9)}.onnx`, 'other.onnx'],
    valid: false,
    reason: 'word '.repeat(60),
    trainedAt: '2026-01-02T03:04:05.000Z',
    adopted: [],
    generations: [],
    usedBytes: 12_345 * MIB,
    limitBytes: 99_999 * MIB,
    checkpoints: { count: 9998, bytes: 99_999 * MIB },
    prunable: { count: 9999, bytes: 99_999 * MIB },
    guarantee: 'kernel+sandbox',
    lastResult: { outcome: 'interrupted', at: '2026-01-02T03:04:05.000Z', reason: 'because '.repeat(50) },
  }
  const status: Status = {
    modelsDir: '/var/lib/ransomeye/models',
    freeBytes: 1e15,
    obstacle: null,
    running: null,
    lastRun: { startedAt: '2026-01-02T03:04:05.000Z', exitCode: 1, message: 'text '.repeat(50) },
    jobs: [job],
  }

  const text = drawStatus(status, false)
  const wide = drawStatus(status, false, 140)

  assert.equal(
    text.split('\n').filter(line => line.length > 80),
    [],
  )
  assert.equal(
    wide.split('\n').filter(line => line.length > 140),
    [],
  )
  assert.match(
    wide,
    /^agent +not valid +long\S*… +2026-01-02 03:04 +░{4} 12345\/99999 MiB +9998, 99999 MiB +9999, 99999 MiB +kernel\+sandbox +interrupted$/m,
  )
  assert.match(
    text,
    /^agent +lon\S*… +2026-01-02 03:04 +kernel\+sandbox +interrupted\nnot valid +░{4} 12345\/99999 MiB +9998, 99999 MiB +9999, 99999 MiB$/m,
  )
})

test('drawStatus() takes one line a job from 110 columns on, whatever state jobs of 3 GiB are in', () => {
  const job: Status['jobs'][number] = {
    job: 'agent',
    models: ['long-name.onnx', 'other.onnx'],
    valid: false,
    reason: 'core.onnx is empty',
    trainedAt: '2026-01-02T03:04:05.000Z',
    adopted: [],
    generations: [],
    usedBytes: 3072 * MIB,
    limitBytes: 3072 * MIB,
    checkpoints: { count: 99, bytes: 3000 * MIB },
    prunable: { count: 98, bytes: 2970 * MIB },
    guarantee: 'kernel+sandbox',
    lastResult: { outcome: 'interrupted', at: '2026-01-02T03:04:05.000Z', reason: 'SIGTERM' },
  }
  const status: Status = {
    modelsDir: '/m',
    freeBytes: 1e9,
    obstacle: null,
    running: null,
    lastRun: null,
    jobs: [job, { ...job, job: 'core', valid: true, lastResult: null }],
  }

  const lines = drawStatus(status, false, 110).split('\n')

  assert.equal(
    lines.filter(line => line.length > 110),
    [],
  )
  assert.match(
    lines.join('\n'),
    /^agent not valid long-nam… 2026-01-02 03:04 3072\/3072 MiB +99, 3000 MiB 98, 2970 MiB kernel\+sandbox interrupted\ncore +valid /m,
  )
})

test('status says why there is nothing on a disk that is full, read-only or not mounted, and advises no other folder', async () => {
  for (const [obstacle, freeBytes, words] of [
    ['full', 0, 'none could be: the disk is full, free some space'],
    ['read-only', 10 * MIB, 'none could be: it is read-only'],
    [
      'unmounted',
      10 * MIB,
      'which is another disk: nothing is mounted where /etc/fstab has one; mount that: mount -a',
    ],
    ['unmounted', null, 'not there, and nothing is mounted where /etc/fstab has its disk'],
    [
      'read-only',
      null,
      'not there, and it cannot be made: the filesystem is read-only, on which the service ends with 238/STATE_DIRECTORY; mount it writable',
    ],
  ] as const) {
    const status: Status = { modelsDir: '/m', freeBytes, obstacle, running: null, lastRun: null, jobs: [] }

    const text = drawStatus(status, false).replaceAll('\n  ', ' ')

    assert.match(text, words)
    assert.not.match(text, '--models-dir')
  }
})

skipUnless(
  test,
  process.getuid?.() === 0,
  'needs root',
)('status sees that a disk is full, and that it is read-only', async () => {
  await using box = await sandbox({ 'quotas.json': readFileSync(join(root, 'quotas.json')) })
  const place = box.path('disk')
  mkdirSync(place)
  const mount = (...args: string[]) => spawnSync('mount', [...args, place])
  mount('-t', 'tmpfs', '-o', 'size=1m', 'tmpfs')
  try {
    writeFileSync(join(place, 'big'), Buffer.alloc(2 ** 20 - 4096))
    const modelsDir = join(place, 'models')
    const look = async () => (await readStatus(modelsDir, readQuotas(box.path('quotas.json')))).obstacle

    const full = await look()
    mount('-o', 'remount,ro')

    assert.equal([full, await look()], ['full', 'read-only'])
  } finally {
    spawnSync('umount', [place])
  }
})

test('status tells of a run on another machine by what it has written down, and names no pid of this one', async () => {
  await using rig = await trainerRig()
  const stateDir = join(rig.modelsDir, '.trainer')
  mkdirSync(stateDir, { recursive: true })
  writeFileSync(join(stateDir, 'lock'), '17\nhost n2\nboot 00000000-0000-0000-0000-000000000000\njob 4\n')
  const start = {
    event: 'run.start',
    modelsDir: rig.modelsDir,
    jobs: ['core'],
    version: '1',
    host: 'n2',
    slurmJob: 4,
  }
  const stamp = { time: '2026-03-01T10:00:00.000Z', level: 'info', run: 'r' }
  writeFileSync(join(stateDir, 'events.jsonl'), `${JSON.stringify({ ...stamp, ...start })}\n`)

  const { exitCode, stdout } = await rig.run([], { script: 'scripts/status.ts' })

  assert.equal(exitCode, 0)
  assert.match(
    stdout.replaceAll(/\s+/g, ' '),
    /running: .*, on n2, Slurm job 4, last heard of at 2026-03-01 10:00:00 UTC/,
  )
  assert.not.match(stdout, /pid/)
})

test('drawStatus() shows the name of another machine, which a journal has, so that it does nothing to a terminal', () => {
  const elsewhere = { host: 'n2\x1b[2J', slurmJob: '4', lastHeardAt: null }
  const unknown = { pid: null, startedAt: null, stepSince: null, job: null, step: null, progress: null }
  const status: Status = {
    modelsDir: '/m',
    freeBytes: 1,
    obstacle: null,
    running: { ...unknown, elsewhere },
    lastRun: null,
    jobs: [],
  }

  assert.match(drawStatus(status, false), /on\s+n2\\x1b\[2J, Slurm/)
})

test.run()
