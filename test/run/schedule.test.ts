import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import type { JobName } from '../../lib/quotas.ts'
import { nextDue, untilNextPassMs, waitFor } from '../../lib/run/schedule.ts'
import { parseDuration } from '../../lib/settings/options.ts'
import { test } from '../support/test.ts'

test('parseDuration() knows seconds, minutes, hours and days', () => {
  const parsed = ['90s', '30m', '24h', '7d'].map(value => parseDuration('--every', value))

  assert.equal(parsed, [90_000, 1_800_000, 86_400_000, 604_800_000])
})

for (const value of ['', '0s', '5', '1.5h', '-1h', '1w', '24 h', '9999999d']) {
  test(`parseDuration() refuses "${value}" and names the option`, () => {
    assert.throws(
      () => parseDuration('--every', value),
      (error: unknown) =>
        error instanceof TrainerError &&
        error.exitCode === 64 &&
        error.message.startsWith(`--every is "${value}"`),
    )
  })
}

test('nextDue() gives all jobs anew after a success, and what a failed pass did not train', () => {
  const asked: JobName[] = ['core', 'dpi', 'agent']
  const first = { jobs: asked, retrain: false, failures: 0 }

  const afterFailure = nextDue(first, asked, { exitCode: 1, trained: ['core'] })
  const afterAnother = nextDue(afterFailure, asked, { exitCode: 75, trained: [] })
  const afterSuccess = nextDue(afterAnother, asked, { exitCode: 0, trained: ['dpi', 'agent'] })

  assert.equal(afterFailure, { jobs: ['dpi', 'agent'], retrain: false, failures: 1 })
  assert.equal(afterAnother, { jobs: ['dpi', 'agent'], retrain: false, failures: 2 })
  assert.equal(afterSuccess, { jobs: asked, retrain: true, failures: 0 })
})

test('nextDue() tries no model again at once that was not accepted: the same data make the same', () => {
  const due = nextDue({ jobs: ['core'], retrain: true, failures: 0 }, ['core'], {
    exitCode: 4,
    trained: ['core'],
  })

  assert.equal(due, { jobs: ['core'], retrain: true, failures: 0 })
})

test('untilNextPassMs() backs off after failures, never beyond the interval', () => {
  const waits = [0, 1, 2, 3, 9].map(failures => untilNextPassMs(3_600_000, failures) / 60_000)

  assert.equal(waits, [60, 1, 2, 4, 60])
})

test('waitFor() waits its time, and ends at once when it is interrupted', async () => {
  const controller = new AbortController()
  const startedMs = performance.now()
  const waited = await waitFor(50, controller.signal)
  const waitedMs = performance.now() - startedMs
  setTimeout(() => controller.abort(), 20)

  assert.is(await waitFor(2 ** 40, controller.signal), false)
  assert.ok(waited && waitedMs >= 49)
})

test.run()
