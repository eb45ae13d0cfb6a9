import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { readOptions } from '../../lib/settings/options.ts'
import { documentedOptions } from '../support/pages.ts'
import { programOf, root } from '../support/places.ts'
import { inSweep, test } from '../support/test.ts'

const scripts = readdirSync(join(root, 'scripts'))
  .filter(name => name.endsWith('.ts'))
  .map(name => `scripts/${name}`)

function run(script: string, ...args: string[]) {
  return spawnSync(process.execPath, [...programOf(script), ...args], { cwd: root, encoding: 'utf8' })
}

for (const script of ['tasks.ts', ...scripts]) {
  const testHere = script === 'tasks.ts' || script === 'scripts/core.ts' ? test : inSweep
  testHere(`--help of ${script} fits a screen of 80 by 24 and has an example`, () => {
    const { status, stdout, stderr } = run(script, '--help')

    assert.equal([status, stderr], [0, ''])
    const lines = stdout.trimEnd().split('\n')
    assert.ok(lines.length < 24, `${lines.length} lines`)
    assert.equal(
      lines.filter(line => line.length > 80),
      [],
    )
    assert.match(stdout, `Example: node --import tsx ${script} `)
    // Here, because the help is there already.
    const shown = stdout.match(/^ {2}--[\w-]+/gm)!.map(it => it.trim())
    assert.equal(
      documentedOptions(script).filter(option => !shown.includes(option)),
      [],
    )
  })
}

test('-h is --help', () => {
  const program = { name: 'x.ts', summary: '', options: {}, example: '' }

  assert.is(readOptions(['-h'], program), readOptions(['--help'], program))
})

inSweep('--version is the version, as an operator asks for it', () => {
  const byTsx = ['--import', 'tsx', 'tasks.ts', '--version']
  const { status, stdout } = spawnSync(process.execPath, byTsx, { cwd: root, encoding: 'utf8' })

  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  assert.equal([status, stdout], [0, `${version}\n`])
})

test('schema.ts writes nothing on an option that it does not know', () => {
  const { status, stdout, stderr } = run('scripts/schema.ts', '--prin')

  assert.equal([status, stdout], [64, ''])
  assert.match(stderr, "Unknown option '--prin'; did you mean --print?")
})

for (const args of [['--every', '--retrain'], ['--every']]) {
  test(`${args.join(' ')} is refused with what the option lacks`, () => {
    const { status, stderr } = run('tasks.ts', ...args)

    assert.is(status, 64)
    assert.match(
      stderr,
      /: --every lacks its value, as in --every TIME: stay, .* such as 24h; see .* --help\n$/,
    )
  })
}

test('jobs that are separated by a comma are refused with how to name them', () => {
  const { status, stderr } = run('tasks.ts', 'core,dpi')

  assert.is(status, 64)
  assert.match(stderr, 'the jobs are core, dpi, agent, separated by spaces: core dpi\n')
})

test.run()
