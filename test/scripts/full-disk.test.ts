import { existsSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { trainerRig } from '../support/rig.ts'
import { test } from '../support/test.ts'

/** Stdout of a program goes into this file. */
function into(file: string): string[] {
  return ['sh', '-c', 'file=$1; shift; exec "$@" >"$file"', 'sh', file]
}

const fullDisk =
  'ransomeye-trainer: Cannot write to stdout: ENOSPC: no space left on device, write; free some space on that disk\n'

for (const [what, script, args] of [
  ['what verify found', 'scripts/verify.ts', ['--json']],
  ['the status', 'scripts/status.ts', ['--json']],
  ['a dry run', 'tasks.ts', ['--dry-run']],
] as const) {
  test(`${what} that a full disk does not take is an error`, async () => {
    await using rig = await trainerRig()
    mkdirSync(rig.modelsDir)

    const { exitCode, stderr } = await rig.run([...args], { script, prefix: into('/dev/full') })

    assert.equal([exitCode, stderr], [3, fullDisk])
  })
}

for (const [what, script, args] of [
  ['what verify found', 'scripts/verify.ts', []],
  ['the status', 'scripts/status.ts', ['--json']],
  ['the help of a run', 'tasks.ts', ['--help']],
] as const) {
  test(`${what}, of which a full disk takes only the beginning, is an error`, async () => {
    await using rig = await trainerRig()
    const file = rig.path('found')
    const prefix = [...into(file), 'prlimit', '--fsize=100']
    mkdirSync(rig.modelsDir)

    const { exitCode, stderr } = await rig.run([...args], { script, prefix })

    assert.is(statSync(file).size, 100)
    assert.match(stderr, 'Cannot write to stdout: EFBIG')
    assert.is(exitCode, 3)
  })
}

test('a training goes on when its output is lost, because the journal has it', async () => {
  await using rig = await trainerRig()

  const { exitCode, stderr } = await rig.run(['core'], { prefix: into('/dev/full') })

  assert.equal([exitCode, stderr], [0, ''])
  assert.ok(existsSync(join(rig.modelsDir, 'core', 'core.onnx')))
  assert.is(rig.events().at(-1)?.event, 'run.done')
})

test.run()
