import { truncateSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { MIB } from '../../lib/text.ts'
import type { Budget } from '../../lib/training/preflight.ts'
import { hasFileAtLimit } from '../../lib/training/space-failure.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('hasFileAtLimit() finds a file of the output folder that is as large as one may be, and no smaller one', async () => {
  await using box = await sandbox({ 'work/deep/big': 1, 'generations/1/big': 1 })
  // 10 of 30 MiB stay, and 0.25 are for folders and small files.
  const budget = { dir: box.path(), limitBytes: 30 * MIB, keptBytes: 10 * MIB } as Budget
  const { signal } = new AbortController()
  truncateSync(box.path('generations/1/big'), 25 * MIB)
  truncateSync(box.path('work/deep/big'), 19.75 * MIB - 1)
  assert.not(await hasFileAtLimit(budget, signal))

  truncateSync(box.path('work/deep/big'), 19.75 * MIB)

  assert.ok(await hasFileAtLimit(budget, signal))
})

test.run()
