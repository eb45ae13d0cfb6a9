import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root, trainerRig } from './rig.ts'

const generator = 'schema.ts' // takes no arguments
const scripts = readdirSync(join(root, 'scripts'))
  .filter(name => name.endsWith('.ts') && name !== generator)
  .map(name => `scripts/${name}`)

for (const script of ['tasks.ts', ...scripts]) {
  test(`--help of ${script} fits a screen of 80 by 24 and has an example`, async () => {
    await using rig = await trainerRig()

    const { exitCode, stdout, stderr } = await rig.run(['--help'], { script, withModelsDir: false })

    assert.equal([exitCode, stderr], [0, ''])
    const lines = stdout.trimEnd().split('\n')
    assert.ok(lines.length < 24, `${lines.length} lines`)
    assert.equal(
      lines.filter(line => line.length > 80),
      [],
    )
    assert.match(stdout, `Example: node --import tsx ${script} `)
  })
}

test('--version is the version', async () => {
  await using rig = await trainerRig()

  const { exitCode, stdout } = await rig.run(['--version'])

  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  assert.equal([exitCode, stdout], [0, `${version}\n`])
})

test.run()
