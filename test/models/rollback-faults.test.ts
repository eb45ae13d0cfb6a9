/**
 * Going back under faults, made by strace in real processes: killed at every system call that changes the disk, and with
 * every such call refused: in the sweep, at every point.
 */
import { readlinkSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { canTrace, inject, sweepAll } from '../support/faults.ts'
import { isSweep } from '../support/places.ts'
import { setsOf } from '../support/published-sets.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'

const needs = 'needs strace (Debian package strace)'
const faultTest = skipUnless(inSweep, canTrace, needs)

const sets = setsOf(isSweep ? 3 : 1)
test.after(() => sets.close())

faultTest('a rollback that is killed at any system call leaves one set or the other', async () => {
  const { published, assertCrash } = sets
  const sweep = { fault: 'signal=KILL', prepare: published, command: ['rollback', '1'], assess: assertCrash }
  const outcomes = (await sweepAll(sweep)).flatMap(([, seen]) => seen)

  assert.ok(outcomes.length >= 15, `${outcomes.length} points`)
  assert.equal([...new Set(outcomes)].sort(), ['new', 'old'])
})

faultTest('a rollback to a later generation that is killed leaves one set or the other', async () => {
  const { rolledBack, assertCrash } = sets
  const sweep = { fault: 'signal=KILL', prepare: rolledBack, command: ['rollback', '2'], assess: assertCrash }
  const outcomes = (await sweepAll(sweep)).flatMap(([, seen]) => seen)

  assert.ok(outcomes.length >= 15, `${outcomes.length} points`)
  assert.equal([...new Set(outcomes)].sort(), ['new', 'old'])
})

for (const errno of ['ENOSPC', 'EDQUOT', 'EIO']) {
  // It takes the way of ENOSPC, and has words of its own.
  const isWhole = errno !== 'EDQUOT'
  skipUnless(
    inSweep,
    canTrace,
    needs,
  )(
    `a rollback refused by ${errno} at any system call leaves a whole set and nothing temporary`,
    async () => {
      const { published, assertRefusal } = sets
      const assess = assertRefusal(errno, 'Cannot make generation 1 of core current')
      const fault = `error=${errno}`
      const sweep = { fault, prepare: published, command: ['rollback', '1'], assess, isWhole }
      const outcomes = (await sweepAll(sweep)).flatMap(([, seen]) => seen)

      assert.ok(outcomes.length >= (isWhole ? 15 : 4), `${outcomes.length} points`)
      if (isWhole) assert.equal([...new Set(outcomes)].sort(), ['new', 'old'])
    },
  )
}

skipUnless(
  test,
  canTrace,
  needs,
)('a rollback goes through where nothing is refused', async () => {
  await using box = await sets.published()

  const { code, stderr } = await inject(box.dir, ['-e', 'trace=none'], ['rollback', '1'])

  assert.equal([code, stderr, readlinkSync(box.path('current'))], [0, '', 'generations/1'])
})

test.run()
