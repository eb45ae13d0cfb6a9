import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { buildPackage, builtPackage } from '../support/package-rig.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const packages = ['bash-completion', 'debhelper', 'lintian']
const withLintian = skipUnless(
  test,
  spawnSync('dpkg-query', ['--show', ...packages]).status === 0,
  `needs ${packages.join(', ')}`,
)

withLintian('two builds, in two folders, give the same bytes', async () => {
  const first = await builtPackage()
  await using second = await buildPackage()

  assert.is.not(first.deb, second.deb)
  assert.ok(readFileSync(first.deb).equals(readFileSync(second.deb)))
})

withLintian('lintian finds nothing in the package', async () => {
  const { deb } = await builtPackage()

  const { status, stdout, stderr } = spawnSync('lintian', ['--allow-root', '--fail-on', 'warning', deb], {
    encoding: 'utf8',
  })

  assert.is(status, 0, stdout + stderr)
  assert.is(stdout, '')
})

test.run()
