/**
 * Publishing under faults, made by strace in real processes: killed at every system call that changes the disk, and
 * with every such call refused. In the sweep a set of files goes through every point, in `npm test` it is killed at one call
 * of each kind.
 */
import { existsSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { type Assess, canTrace, inject, type Outcome, sweepAll } from '../support/faults.ts'
import { isSweep } from '../support/places.ts'
import { globs, setsOf } from '../support/published-sets.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, sampled, test } from '../support/test.ts'

const needs = 'needs strace (Debian package strace)'
const faultTest = skipUnless(sampled, canTrace, needs)
const faultTestInSweep = skipUnless(inSweep, canTrace, needs)
const killed = 'signal=KILL'

/** Each file more makes calls more, of kinds that are there already. */
const large = setsOf(isSweep ? 4 : 1)
/** As many as have a first, a last and one in between. */
const small = isSweep ? setsOf(3) : large
test.after(async () => {
  await large.close()
  await small.close()
})

faultTest(
  'publish() killed at any system call leaves the old set or the new, and recover() the rest',
  async () => {
    const { prepared, publishNext, assertCrash } = large
    const sweep = { fault: killed, prepare: prepared, command: publishNext, assess: assertCrash }
    const outcomes = new Map(await sweepAll(sweep))
    for (const call of ['openat', 'write']) outcomes.set(call, [await atManifest(call, killed, assertCrash)])

    const all = [...outcomes.values()].flat()
    // The least that the contract asks for: each of 6 files, their manifest and two folders synced, the generation and
    // `current` renamed.
    assert.ok(outcomes.get('rename')!.length >= (isSweep ? 2 : 1))
    assert.ok(outcomes.get('fsync')!.length >= (isSweep ? 9 : 1))
    assert.equal([...outcomes.get('openat')!, ...outcomes.get('write')!], ['old', 'old'])
    assert.equal([...new Set(all)].sort(), ['new', 'old'])
    if (isSweep) assert.ok(all.length >= 40, `${all.length} points`)
  },
)

faultTestInSweep('recover() killed at any system call is finished by the next one', async () => {
  const { interrupted, assertCrash } = small
  const sweep = { fault: killed, prepare: interrupted, command: ['recover'], assess: assertCrash }
  const outcomes = (await sweepAll(sweep)).flatMap(([, seen]) => seen)

  assert.ok(outcomes.length >= 15, `${outcomes.length} points`)
  assert.equal([...new Set(outcomes)], ['new'])
})

faultTestInSweep(
  'the way from files beside each other to generations has no step without a model',
  async () => {
    const { flat, assertUpgrading } = small
    const assess: Assess = async (box, { signal }) => {
      assert.is(signal, 'SIGKILL')
      return assertUpgrading(box)
    }
    const sweep = { fault: killed, prepare: flat, command: ['start', ...globs], assess }
    const outcomes = (await sweepAll(sweep)).flatMap(([, seen]) => seen)

    assert.ok(outcomes.length >= 20, `${outcomes.length} points`)
  },
)

for (const errno of ['ENOSPC', 'EDQUOT', 'EIO']) {
  // It takes the way of ENOSPC, and has words of its own.
  const isWhole = errno !== 'EDQUOT'
  faultTestInSweep(
    `publish() refused by ${errno} at any system call leaves a whole set and nothing temporary`,
    async () => {
      const { prepared, publishNext, assertRefusal } = small
      const fault = `error=${errno}`
      const assess = assertRefusal(errno, 'Cannot publish core\\.onnx, .* in \\S+')
      const sweep = { fault, prepare: prepared, command: publishNext, assess, isWhole }
      const outcomes = (await sweepAll(sweep)).flatMap(([, it]) => it)
      const early = [await atManifest('openat', fault, assess), await atManifest('write', fault, assess)]

      assert.equal(early, ['old', 'old'])
      assert.ok(outcomes.length >= (isWhole ? 40 : 5), `${outcomes.length} points`)
      assert.ok(outcomes.includes('old'))
    },
  )

  faultTestInSweep(
    `the way to generations refused by ${errno} at any system call leaves what was published in use`,
    async () => {
      const { flat, assertUpgrading } = small
      const assess: Assess = async (box, { code, stderr }) => {
        assert.is(code, 1)
        assert.match(stderr, new RegExp(`^Cannot .* ${errno}: .*\n$`))
        return assertUpgrading(box)
      }
      const fault = `error=${errno}`
      const sweep = { fault, prepare: flat, command: ['start', ...globs], assess, isWhole }
      const outcomes = (await sweepAll(sweep)).flatMap(([, it]) => it)

      assert.ok(outcomes.length >= (isWhole ? 20 : 5), `${outcomes.length} points`)
    },
  )
}

skipUnless(
  test,
  canTrace,
  needs,
)('publish() throws a model away whose fsync failed, and does not try again', async () => {
  const { prepared, publishNext } = small
  await using box = await prepared()

  const tracing = ['-e', 'trace=fsync', '-e', 'inject=fsync:error=EIO:when=2']
  const { log } = await inject(box.dir, tracing, publishNext)

  const file = box.path('work/core.onnx')
  assert.is(log.split('\n').filter(line => line.includes(`<${file}>`)).length, 1)
  assert.not(existsSync(file))
})

/** A fault at the one call that makes the file of the next generation's manifest, or that writes it. */
async function atManifest(call: string, fault: string, assess: Assess): Promise<Outcome> {
  const { prepared, publishNext } = fault === killed ? large : small
  await using box = await prepared()
  const path = box.path('generations/next/manifest.json')
  const tracing = ['-P', path, '-e', `trace=${call}`, '-e', `inject=${call}:${fault}:when=1+`]
  return await assess(box, await inject(box.dir, tracing, publishNext))
}

test.run()
