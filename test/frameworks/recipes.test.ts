import { spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { quotasSchema } from '../../lib/quotas.ts'
import { readQuotas } from '../../lib/settings/quotas-file.ts'
import { jobOf, recipes } from '../support/recipes.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const python = '/usr/bin/python3'

test('each framework that quotas.json may name has a recipe', () => {
  const { framework } = quotasSchema.entries.jobs.entries.core.pipe[0].entries
  for (const name of framework.wrapped.options)
    assert.ok(
      recipes.some(({ heading }) => heading === name),
      name,
    )
})

for (const recipe of recipes) {
  const { heading, json, program } = recipe

  test(`the recipe of ${heading} is a job of quotas.json, in ten lines`, async () => {
    await using box = await sandbox()
    const job = jobOf(recipe)
    writeFileSync(box.path('quotas.json'), JSON.stringify({ jobs: { core: job, dpi: job, agent: job } }))

    const { jobs } = readQuotas(box.path('quotas.json'))

    assert.ok(json.trim().split('\n').length <= 10)
    assert.ok(jobs.core.train.some(word => word.includes('{outputDir}')))
  })

  skipUnless(
    test,
    existsSync(python),
    'needs Debian python3',
  )(`the program of ${heading} is Python, and exports a model into the output folder`, () => {
    const look = 'import ast, sys; ast.parse(sys.stdin.read())'
    const { status, stderr } = spawnSync(python, ['-c', look], { input: program, encoding: 'utf8' })

    assert.is(status, 0, stderr)
    if (program) assert.match(program, /sys\.argv\[-?1\]/)
  })
}

test.run()
