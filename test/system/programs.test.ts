import * as assert from 'uvu/assert'
import { ProgramFailure, programRunner } from '../../lib/system/programs.ts'
import { test } from '../support/test.ts'

test('a program that is not installed is named, and one that fails is told in its own words', async () => {
  const run = programRunner()

  const [missing, failed] = await Promise.allSettled([
    run(['no-such-program', '--flag']),
    run(['ls', '/no/such']),
  ])

  assert.ok(missing?.status === 'rejected' && missing.reason instanceof ProgramFailure)
  assert.is(missing.reason.message, 'no-such-program is not installed')
  assert.ok(failed?.status === 'rejected' && failed.reason instanceof ProgramFailure)
  assert.match(failed.reason.message, /^ls: .*\/no\/such.*No such file or directory$/)
})

test.run()
