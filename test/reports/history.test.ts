import * as assert from 'uvu/assert'
import type { EventBody, TrainerEvent } from '../../lib/events.ts'
import { groupRuns, isTrainingRun } from '../../lib/reports/history.ts'
import type { JobHistory } from '../../lib/reports/job-history.ts'
import { test } from '../support/test.ts'

const START_MS = Date.parse('2026-03-01T10:00:00.000Z')

/** Events of one run, each so many seconds after ten o'clock. */
function eventsOf(run: string, ...bodies: [second: number, body: EventBody][]): TrainerEvent[] {
  return bodies.map(([second, body]) => ({
    time: new Date(START_MS + second * 1000).toISOString(),
    level: 'info',
    run,
    ...body,
  }))
}

const job = 'core'
const started: EventBody = { event: 'run.start', modelsDir: '/m', jobs: ['core', 'dpi'], version: '1.0.0' }
const jobStarted: EventBody = {
  event: 'job.start',
  job,
  dir: '/m/core',
  limitBytes: 1000,
  guarantee: 'watch',
}
const trainStarted: EventBody = { event: 'train.start', job, pid: 7, argv: ['node'] }
const trainEnded: EventBody = { event: 'train.exit', job, exitCode: 0, signal: null, seconds: 5 }
const usage = (usedBytes: number): EventBody => ({
  event: 'storage.usage',
  job,
  phase: 'training',
  usedBytes,
  limitBytes: 900,
  freeBytes: 5000,
})
const prune = (bytes: number, usedBytes: number): EventBody => ({
  event: 'storage.prune',
  job,
  path: `/m/core/work/${bytes}.tmp`,
  bytes,
  mtime: '2026-03-01T09:00:00.000Z',
  rule: '*.tmp',
  usedBytes,
})

function onlyJob(events: TrainerEvent[]): JobHistory {
  const [run] = groupRuns(events)
  assert.is(run!.jobs.length, 1)
  return run!.jobs[0]!
}

test('groupRuns() has one training of a job that was ended by mistake and began again, from its first start to its last end', () => {
  const killed: EventBody = { event: 'train.exit', job, exitCode: null, signal: 'SIGKILL', seconds: 2 }
  const events = eventsOf(
    'r1',
    [0, started],
    [1, jobStarted],
    [2, trainStarted],
    [4, killed],
    [4, { event: 'warning', job, message: 'Stopped core by mistake' }],
    [5, jobStarted],
    [6, trainStarted],
    [8, trainEnded],
    [9, { event: 'job.done', job, seconds: 8, usedBytes: 640 }],
  )

  const { outcome, training } = onlyJob(events)

  assert.is(outcome, 'done')
  assert.equal([training?.startMs, training?.endMs], [2000, 8000])
  assert.equal(training?.exit, { exitCode: 0, signal: null })
})

test('groupRuns() tells what a run did, with times from its start', () => {
  const events = eventsOf(
    'r1',
    [0, started],
    [1, jobStarted],
    [2, trainStarted],
    [3, usage(500)],
    [4, { event: 'train.freeze', job, usedBytes: 950 }],
    [4, prune(300, 650)],
    [4, { event: 'train.resume', job, usedBytes: 650, pausedMs: 40 }],
    [7, trainEnded],
    [
      8,
      {
        event: 'model.publish',
        job,
        path: '/m/core/a.onnx',
        bytes: 3,
        sha256: 'ab',
        data: [],
        metrics: { recall: 1 },
      },
    ],
    [9, { event: 'job.done', job, seconds: 8, usedBytes: 640 }],
    [9, { event: 'run.done', exitCode: 0, seconds: 9, message: 'all done' }],
  )

  const [run] = groupRuns(events)

  const [core] = run!.jobs
  assert.is(run!.startedAt, '2026-03-01T10:00:00.000Z')
  assert.is(run!.durationMs, 9000)
  assert.is(run!.exitCode, 0)
  assert.equal(run!.asked, ['core', 'dpi'])
  assert.is(core!.outcome, 'done')
  assert.equal([core!.startMs, core!.endMs], [1000, 9000])
  assert.equal([core!.training!.startMs, core!.training!.endMs], [2000, 7000])
  assert.equal(core!.training!.exit, { exitCode: 0, signal: null })
  assert.equal(
    core!.samples.map(({ usedBytes }) => usedBytes),
    [500, 950, 650, 650, 640],
  )
  assert.equal(core!.freezes, { count: 1, pausedMs: 40, atMs: [4000] })
  assert.is(core!.prunes.bytes, 300)
  assert.is(core!.prunes.last[0]!.path, '/m/core/work/300.tmp')
  assert.is(core!.published[0]!.sha256, 'ab')
})

test('groupRuns() draws the quota, not what a small disk left of it', () => {
  const core = onlyJob(eventsOf('r1', [0, jobStarted], [1, usage(1)]))

  assert.is(core.quotaBytes, 1000)
})

test('groupRuns() counts a peak from the start of the training, not what was cleared away before it', () => {
  const core = onlyJob(
    eventsOf(
      'r1',
      [0, jobStarted],
      [1, prune(900, 1500)],
      [2, trainStarted],
      [3, usage(700)],
      [4, usage(600)],
    ),
  )

  assert.is(core.peakBytes, 700)
})

test('groupRuns() keeps the reason of a failure and of a skip', () => {
  const [run] = groupRuns(
    eventsOf(
      'r1',
      [0, { event: 'job.skip', job: 'agent', reason: 'agent.onnx as published' }],
      [1, { event: 'job.fail', job, code: 'training-failed', message: 'exit code 3' }],
      [2, { event: 'run.done', exitCode: 1, seconds: 2, message: 'exit code 3' }],
    ),
  )

  const [agent, core] = run!.jobs
  assert.equal([agent!.outcome, agent!.reason], ['skipped', 'agent.onnx as published'])
  assert.equal([core!.outcome, core!.reason], ['failed', 'exit code 3'])
  assert.equal([run!.exitCode, run!.message], [1, 'exit code 3'])
})

test('groupRuns() leaves the end open of a run that was killed', () => {
  const [run] = groupRuns(eventsOf('r1', [0, started], [1, jobStarted], [2, trainStarted], [5, usage(3)]))

  const [core] = run!.jobs
  assert.is(run!.exitCode, undefined)
  assert.is(core!.outcome, 'unfinished')
  assert.is(core!.training!.exit, undefined)
  assert.is(core!.training!.endMs, 5000)
})

test('isTrainingRun() tells a run that was to train from one that prunes or only checks', () => {
  const checked: EventBody = { event: 'day1.check', job, models: [], missing: true, reason: 'no model' }
  const failed: EventBody = { event: 'job.fail', job, code: 'storage', message: 'cannot' }
  const jobDone: EventBody = { event: 'job.done', job, seconds: 1, usedBytes: 1 }
  const done = (exitCode: number): EventBody => ({ event: 'run.done', exitCode, seconds: 1, message: '' })
  const cases: [isTraining: boolean, bodies: EventBody[]][] = [
    [true, [started, checked, jobStarted, trainStarted]],
    [true, [started, checked, { event: 'job.skip', job, reason: '' }, done(0)]],
    [true, [started, checked, failed, done(3)]],
    [true, [started, done(3)]],
    [true, [usage(1), trainEnded, jobDone, done(0)]], // the journal does not reach back to its start
    [false, [started, usage(1), prune(1, 1), jobDone, done(0)]],
    [false, [started, usage(1), failed, done(2)]],
    [false, [started, failed, done(3)]],
    [false, [started, usage(1)]],
    [false, [started, done(0)]],
    [false, [started, checked, done(0)]],
  ]

  for (const [isTraining, bodies] of cases) {
    const [run] = groupRuns(eventsOf('r1', ...bodies.map((body): [number, EventBody] => [0, body])))
    assert.is(isTrainingRun(run!), isTraining, bodies.map(({ event }) => event).join(' '))
  }
})

test('groupRuns() knows where a run was by its end, where the journal does not reach back to its start', () => {
  const done: EventBody = {
    event: 'run.done',
    exitCode: 0,
    seconds: 1,
    message: '',
    host: 'n1',
    slurmJob: 17,
  }

  const [run] = groupRuns(eventsOf('r1', [0, done]))

  assert.equal([run!.host, run!.slurmJob], ['n1', 17])
})

test('groupRuns() keeps the last runs, the oldest first', () => {
  const events = ['r1', 'r2', 'r3'].flatMap((run, index) => eventsOf(run, [index, started]))

  const runs = groupRuns(events, 2)

  assert.equal(
    runs.map(({ run }) => run),
    ['r2', 'r3'],
  )
})

test('groupRuns() counts no time for a clock that is set back, or years ahead, during a run', () => {
  const years = 50 * 365 * 86_400
  const [run] = groupRuns(
    eventsOf(
      'r1',
      [0, started],
      [10, usage(1)],
      [10 - 3600, usage(2)],
      [20 - 3600, usage(3)],
      [years, usage(4)],
      [years + 5, usage(5)],
    ),
  )

  assert.equal(
    run!.jobs[0]!.samples.map(({ atMs }) => atMs / 1000),
    [10, 10, 20, 20, 25],
  )
})

test('groupRuns() stays small with hundreds of thousands of events, and loses neither sums nor the peak', () => {
  function* many(): Generator<TrainerEvent> {
    yield* eventsOf('r1', [0, jobStarted], [0, trainStarted])
    for (let index = 0; index < 200_000; index++) {
      yield* eventsOf('r1', [index, usage(index === 123_457 ? 999 : index % 7)], [index, prune(2, 5)])
    }
  }

  const [run] = groupRuns(many())

  const { samples, prunes, peakBytes } = run!.jobs[0]!
  assert.is(prunes.count, 200_000)
  assert.is(prunes.bytes, 400_000)
  assert.is(peakBytes, 999)
  assert.ok(samples.some(({ usedBytes }) => usedBytes === 999))
  assert.ok(samples.length <= 1000 && samples.length >= 500)
  assert.ok(prunes.last.length <= 200 && prunes.last.at(-1)!.atMs === 199_999_000)
  assert.ok(prunes.atMs.length <= 1000 && prunes.atMs[0] === 0)
})

test.run()
