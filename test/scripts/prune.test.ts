import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { groupRuns } from '../../lib/reports/history.ts'
import { readEvents } from '../../lib/run/past-events.ts'
import { MIB } from '../../lib/text.ts'
import { trainerRig, untilEvent } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'

const script = 'scripts/prune.ts'
const canTrace = spawnSync('strace', ['-D', 'true']).status === 0
const traceTest = skipUnless(inSweep, canTrace, 'needs strace (Debian package strace)')
const rootTest = skipUnless(test, process.getuid?.() === 0, 'needs root')

/** Checkpoints of one MiB in a job's `work/`, the first the oldest. */
function writeCheckpoints(modelsDir: string, job: string, names: string[], bytes = MIB): string {
  const work = join(modelsDir, job, 'work')
  mkdirSync(work, { recursive: true })
  for (const [age, name] of names.entries()) {
    writeFileSync(join(work, name), Buffer.alloc(bytes, 1))
    utimesSync(join(work, name), 1000 + age, 1000 + age)
  }
  return work
}

function writeModel(modelsDir: string, job: string, bytes: number): string {
  const model = join(modelsDir, job, `${job}.onnx`)
  mkdirSync(join(modelsDir, job), { recursive: true })
  writeFileSync(model, Buffer.alloc(bytes, 1))
  return model
}

test('prune deletes temporary files and then the oldest checkpoints down to the quota, tells each and the sum', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 3 } })
  const work = writeCheckpoints(rig.modelsDir, 'core', [
    'b.checkpoint',
    'a.checkpoint',
    'c.checkpoint',
    'd.tmp',
  ])
  const model = writeModel(rig.modelsDir, 'core', 100)

  const { exitCode, stdout } = await rig.run([], { script })

  assert.is(exitCode, 0)
  assert.equal(readdirSync(work).sort(), ['a.checkpoint', 'c.checkpoint'])
  assert.ok(existsSync(model))
  const told = stdout.match(/core: pruned \S+ \(1 MiB, rule \S+\)/g)
  assert.equal(told, [
    `core: pruned ${work}/d.tmp (1 MiB, rule *.tmp)`,
    `core: pruned ${work}/b.checkpoint (1 MiB, rule *.checkpoint)`,
  ])
  assert.match(stdout, /pruned 2 \(2 MiB\), after [\d.]+ s\n$/)
})

test('prune follows the globs of the job, and is a run in the journal', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 1, prune: ['checkpoint-*'] } })
  writeCheckpoints(rig.modelsDir, 'core', ['checkpoint-500', 'other'], 700_000)

  await rig.run(['core'], { script })

  const [run] = groupRuns(readEvents(join(rig.modelsDir, '.trainer')))
  assert.is(run?.exitCode, 0)
  const [core, ...others] = run!.jobs
  assert.is(others.length, 0)
  assert.is(core?.outcome, 'done')
  assert.is(core!.quotaBytes, MIB)
  assert.ok(core!.samples[0]!.usedBytes > MIB)
  assert.equal(
    core!.prunes.last.map(({ path, rule }) => ({ path, rule })),
    [{ path: join(rig.modelsDir, 'core', 'work', 'checkpoint-500'), rule: 'checkpoint-*' }],
  )
})

inSweep('prune --dry-run says what prune then does, and changes nothing, not even beside a run', async () => {
  const core = { maxDiskMb: 2, trainer: `await sleep(60_000)` }
  await using rig = await trainerRig({ core, dpi: { maxDiskMb: 2 } })
  const work = writeCheckpoints(rig.modelsDir, 'dpi', ['1.tmp', '2.tmp', '3.tmp'])
  const training = rig.start(['core'])
  await untilEvent(rig, 'train.start')

  const dry = await rig.run(['dpi', '--dry-run', '--json'], { script })
  const left = readdirSync(work)
  training.child.kill('SIGTERM')
  await training.ended
  const real = await rig.run(['dpi', '--json'], { script })

  assert.is(dry.exitCode, 0)
  assert.equal(left.sort(), ['1.tmp', '2.tmp', '3.tmp'])
  const prunesOf = ({ events }: typeof dry) =>
    events.flatMap(it => (it.event === 'storage.prune' ? [[it.path, it.bytes, it.usedBytes]] : []))
  assert.is(prunesOf(dry).length, 2)
  assert.equal(prunesOf(dry), prunesOf(real))
  assert.match(dry.stdout, /"message":"dry run, nothing was changed; would prune 2 \(2 MiB\)"/)
})

inSweep('prune leaves everything alone while a run holds the lock: exit code 75', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 1, trainer: `await sleep(60_000)` } })
  const training = rig.start(['core'])
  await untilEvent(rig, 'train.start')
  const work = writeCheckpoints(rig.modelsDir, 'dpi', ['1.tmp'], 21 * MIB)

  const { exitCode, stderr } = await rig.run([], { script })

  assert.is(exitCode, 75)
  assert.match(stderr, new RegExp(`Another run holds .*: pid ${training.pid};`))
  assert.equal(readdirSync(work), ['1.tmp'])
  training.child.kill('SIGTERM')
  await training.ended
})

test('prune ends with 2 when models alone exceed the quota, and prunes the other jobs all the same', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 1 }, dpi: { maxDiskMb: 1 } })
  const model = writeModel(rig.modelsDir, 'core', 2 * MIB)
  const coreWork = writeCheckpoints(rig.modelsDir, 'core', ['1.tmp'])
  const dpiWork = writeCheckpoints(rig.modelsDir, 'dpi', ['1.tmp', '2.tmp'], 700_000)

  const { exitCode, stdout } = await rig.run([], { script })

  assert.is(exitCode, 2)
  assert.match(stdout, /CRITICAL core: Model too large for quota: /)
  assert.match(stdout, /ERROR pruned 2 \(1\.7 MiB\); core failed \(exit code 2\)/)
  assert.ok(existsSync(model))
  assert.equal(readdirSync(coreWork), [])
  assert.equal(readdirSync(dpiWork), ['2.tmp'])
})

inSweep('prune ends with the highest exit code of its jobs', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 1 }, dpi: { maxDiskMb: 1 } })
  writeModel(rig.modelsDir, 'core', 2 * MIB)
  const outside = writeCheckpoints(rig.path('elsewhere'), 'dpi', ['1.tmp'], 2 * MIB)
  symlinkSync(rig.path('elsewhere', 'dpi'), join(rig.modelsDir, 'dpi'))

  const { exitCode, stdout } = await rig.run([], { script })

  assert.is(exitCode, 3)
  assert.match(stdout, /dpi: failed: Cannot measure .*: it is not a folder, or a link to one/)
  assert.equal(readdirSync(outside), ['1.tmp'])
})

test('prune refuses a models folder that is not there, and makes none', async () => {
  await using rig = await trainerRig()

  for (const args of [[], ['--dry-run']]) {
    const { exitCode, stdout, stderr } = await rig.run(args, { script })

    assert.equal([exitCode, stdout], [3, ''])
    assert.is(
      stderr,
      `ransomeye-trainer: There is no models folder ${rig.modelsDir}; name another by --models-dir\n`,
    )
    assert.ok(!existsSync(rig.modelsDir))
  }
})

rootTest('prune --dry-run does not take for empty what this user may not look into', async () => {
  await using rig = await trainerRig()
  writeCheckpoints(rig.modelsDir, 'core', ['1.tmp'], 21 * MIB)
  chmodSync(rig.dir, 0o755)
  chmodSync(rig.modelsDir, 0o700)
  const prefix = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--']

  const { exitCode, stderr } = await rig.run(['core', '--dry-run'], { script, prefix })

  assert.is(exitCode, 3)
  assert.match(stderr, /Cannot use the models folder .*EACCES.*; run it as root, the owner of .*models, or /)
})

traceTest('prune stops at SIGINT, between two deletions', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 1 } })
  const names = Array.from({ length: 1000 }, (_, index) => `${index}.tmp`)
  const work = writeCheckpoints(rig.modelsDir, 'core', names, 8192)
  // As if the disk were slow: 20 ms a deletion. With -D the process that was started is prune itself.
  const prefix = ['strace', '-D', '-qq', '-o', '/dev/null', '-e', 'inject=unlink:delay_enter=20ms']
  const started = rig.start([], { script, prefix })
  await until('a deletion', () => readdirSync(work).length < names.length)

  started.child.kill('SIGINT')
  const { exitCode } = await started.ended

  assert.is(exitCode, 130)
  const deleted = rig.events().filter(({ event }) => event === 'storage.prune').length
  assert.is(readdirSync(work).length, names.length - deleted)
  assert.ok(deleted < 600, `${deleted} deletions`)
})

inSweep(
  'prune gets along with few open files, whatever number of folders the checkpoints are in',
  async () => {
    await using rig = await trainerRig({ core: { maxDiskMb: 4 } })
    const folders = Array.from({ length: 300 }, (_, number) => `core/${number}`)
    for (const folder of folders) writeCheckpoints(rig.modelsDir, folder, ['a.checkpoint'], 65_536)

    const { exitCode, stderr } = await rig.run([], { script, prefix: ['prlimit', '--nofile=60'] })

    assert.is(exitCode, 0, stderr)
  },
)

test.run()
