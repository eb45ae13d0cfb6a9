import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import type { JobName } from '../../lib/quotas.ts'
import { findOverlaps, groupRuns } from '../../lib/reports/history.ts'
import { test } from '../support/test.ts'

type Step = [run: string, event: 'start' | 'exit' | 'usage', job: JobName, second: number]

/** Which trainings overlap in a journal of these steps, as `earlier+later`. */
function overlapsIn(...steps: Step[]): string[] {
  const events = steps.map(([run, event, job, second]): TrainerEvent => {
    const stamp = { time: new Date(second * 1000).toISOString(), level: 'info', run, job } as const
    if (event === 'start') return { ...stamp, event: 'train.start', pid: 7, argv: ['node'] }
    if (event === 'exit') return { ...stamp, event: 'train.exit', exitCode: 0, signal: null, seconds: 1 }
    return { ...stamp, event: 'storage.usage', phase: 'training', usedBytes: 1, limitBytes: 2, freeBytes: 3 }
  })
  return findOverlaps(groupRuns(events)).map(([earlier, later]) => `${earlier.job.job}+${later.job.job}`)
}

test('findOverlaps() finds none in trainings one after another', () => {
  const overlaps = overlapsIn(
    ['r1', 'start', 'core', 0],
    ['r1', 'exit', 'core', 5],
    ['r1', 'start', 'dpi', 5],
    ['r1', 'exit', 'dpi', 8],
    ['r2', 'start', 'core', 8],
    ['r2', 'exit', 'core', 9],
  )

  assert.equal(overlaps, [])
})

test('findOverlaps() finds two trainings at once in one run', () => {
  const overlaps = overlapsIn(
    ['r1', 'start', 'core', 0],
    ['r1', 'start', 'dpi', 4],
    ['r1', 'exit', 'core', 5],
    ['r1', 'exit', 'dpi', 8],
  )

  assert.equal(overlaps, ['core+dpi'])
})

test('findOverlaps() finds trainings of two runs at once, and every one inside a long one', () => {
  const overlaps = overlapsIn(
    ['r1', 'start', 'core', 0],
    ['r2', 'start', 'dpi', 1],
    ['r2', 'exit', 'dpi', 2],
    ['r2', 'start', 'agent', 3],
    ['r2', 'exit', 'agent', 4],
    ['r1', 'exit', 'core', 5],
  )

  assert.equal(overlaps, ['core+dpi', 'core+agent'])
})

test('findOverlaps() finds a job that is trained twice at once within another', () => {
  const overlaps = overlapsIn(
    ['r1', 'start', 'core', 0],
    ['r1', 'start', 'dpi', 1],
    ['r1', 'exit', 'core', 2],
    ['r1', 'start', 'dpi', 3],
    ['r1', 'exit', 'dpi', 4],
  )

  assert.equal(overlaps, ['core+dpi'])
})

test('findOverlaps() counts a training whose run was killed up to its last event', () => {
  const killedBefore = overlapsIn(
    ['r1', 'start', 'core', 0],
    ['r1', 'usage', 'core', 3],
    ['r2', 'start', 'core', 4],
    ['r2', 'exit', 'core', 9],
  )
  const aliveAfter = overlapsIn(
    ['r1', 'start', 'core', 0],
    ['r2', 'start', 'core', 2],
    ['r1', 'usage', 'core', 3],
    ['r2', 'exit', 'core', 9],
  )

  assert.equal(killedBefore, [])
  assert.equal(aliveAfter, ['core+core'])
})

test('findOverlaps() is not misled by a clock that is set back between two trainings', () => {
  const overlaps = overlapsIn(
    ['r1', 'start', 'core', 1000],
    ['r1', 'exit', 'core', 2000],
    ['r1', 'start', 'dpi', 500],
    ['r1', 'exit', 'dpi', 1500],
  )

  assert.equal(overlaps, [])
})

test.run()
