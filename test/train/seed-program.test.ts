/** Processes are started by node:child_process, because zx would put a shell between. */
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { programOf } from '../support/places.ts'
import { sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

for (const [fault, argv, told] of [
  ['an unknown option', ['--max-disk-mb', '5', '--sed', '1'], "'--sed'; did you mean --seed?"],
  ['no quota', ['--output-dir', 'out'], '--max-disk-mb is missing'],
  ['no folder', ['--max-disk-mb', '5'], '--output-dir is missing'],
  ['a quota of 0', ['--max-disk-mb', '0', '--output-dir', 'out'], '--max-disk-mb is "0"'],
  ['a fractional seed', ['--max-disk-mb', '5', '--output-dir', 'out', '--seed', '1.5'], '--seed is "1.5"'],
  ['negative epochs', ['--max-disk-mb', '5', '--output-dir', 'out', '--epochs=-1'], '--epochs is "-1"'],
  ['a stray word', ['--max-disk-mb', '5', '--output-dir', 'out', 'core'], "'core'"],
] as const) {
  test(`a seed trainer given ${fault} says so in one line and ends with 64`, async () => {
    await using box = await sandbox()

    const { exitCode, stdout, stderr } = await run('core', [...argv], box.dir)

    assert.is(exitCode, 64)
    assert.is(stdout, '')
    assert.is(stderr.trimEnd().split('\n').length, 1)
    assert.ok(stderr.includes(told), stderr)
    assert.equal(readdirSync(box.dir), [])
  })
}

for (const job of ['core', 'dpi', 'agent']) {
  inSweep(
    `the ${job} trainer runs alone, and ends with the line that says how good its model is`,
    async () => {
      await using box = await sandbox()
      const argv = ['--max-disk-mb', '5', '--output-dir', box.path('out'), '--epochs', '1']

      const { exitCode, stdout, stderr } = await run(job, argv, box.dir)

      assert.is(exitCode, 0, stderr)
      assert.equal(readdirSync(box.path('out')).sort(), [`${job}.onnx`, 'metadata.json'])
      assert.match(stdout.trimEnd().split('\n').at(-1)!, new RegExp(`^${job}: .*%`))
    },
  )
}

function run(job: string, argv: string[], cwd: string) {
  const program = programOf(`scripts/train/${job}.ts`)
  return new Promise<{ exitCode: number | null; stdout: string; stderr: string }>(resolve => {
    const child = execFile('node', [...program, ...argv], { cwd }, (_, stdout, stderr) =>
      resolve({ exitCode: child.exitCode, stdout, stderr }),
    )
  })
}

test.run()
