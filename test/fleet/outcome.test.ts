import * as assert from 'uvu/assert'
import { judge, judgeGone, obstacleOf } from '../../lib/fleet/outcome.ts'
import type { SlurmJob } from '../../lib/fleet/slurm.ts'
import { test } from '../support/test.ts'

const job: SlurmJob = {
  id: 17,
  state: 'FAILED',
  exitCode: 0,
  signal: 0,
  restarts: 0,
  nodes: 'n2',
  reason: 'None',
  name: 'ransomeye:paris',
}
const evidence = {
  jobId: 17,
  done: undefined,
  hasBegun: false,
  log: '/m/.trainer/slurm.log',
  timeMinutes: undefined,
}

/** Outcomes that a small cluster without control groups, accounting or a power switch cannot be made to have. */
const rare: [job: Partial<SlurmJob>, exitCode: number, message: string][] = [
  [{ state: 'OUT_OF_MEMORY', signal: 9 }, 1, 'for too much memory; ask for more by --mem'],
  [{ state: 'BOOT_FAIL' }, 75, 'node n2 is lost'],
  [{ state: 'PREEMPTED' }, 75, 'Slurm took its node away (PREEMPTED)'],
  [{ state: 'TIMEOUT' }, 1, 'that of its partition, on n2; set slurm.timeMinutes'],
  [{ exitCode: 127 }, 78, 'exit code 127 on n2 without a word'],
  [{ exitCode: 44 }, 1, 'exit code 44 on n2 without a word'],
  [{ signal: 11 }, 1, 'killed by SIGSEGV on n2'],
  [
    { state: 'COMPLETED' },
    75,
    "Slurm says its job 17 is done on n2, but its run never began: see slurmd's log on n2 and sinfo -R",
  ],
]

for (const [state, exitCode, message] of rare) {
  test(`judge() takes ${JSON.stringify(state)} for ${exitCode}`, () => {
    const outcome = judge({ ...job, ...state }, evidence)

    assert.is(outcome.exitCode, exitCode)
    assert.match(outcome.message, message)
  })
}

test('judge() takes the reason from the journal only where that tells of the same end', () => {
  const done = { exitCode: 143, message: 'interrupted by SIGTERM' }

  assert.is(judge({ ...job, exitCode: 143 }, { ...evidence, done }).message, done.message)
  assert.is.not(judge({ ...job, exitCode: 75 }, { ...evidence, done }).message, done.message)
})

test('judge() takes a job for done only where its run has told its end', () => {
  const completed = { ...job, state: 'COMPLETED' }
  const done = { exitCode: 0, message: 'nothing to do' }
  const begun = { ...evidence, hasBegun: true }

  assert.equal(judge(completed, { ...begun, done }), done)
  assert.is(judge(completed, begun).exitCode, 75)
  assert.match(
    judge(completed, begun).message,
    'its run has told no end; look at the log /m/.trainer/slurm.log',
  )
})

test('judgeGone() believes the journal, and without it knows nothing', () => {
  const done = { exitCode: 2, message: 'Model too large for quota' }

  assert.equal(judgeGone({ ...evidence, done }), done)
  assert.match(
    judgeGone(evidence).message,
    /^unknown: its job 17 has left the queue without an end; look at the log /,
  )
})

test('obstacleOf() knows every way in which Slurm holds a job, and takes no waiting job for held', () => {
  const held = ['JobHeldUser', 'JobHeldAdmin', 'launch failed requeued held', 'JobHoldMaxRequeue']
  const waiting = ['Priority', 'Resources', 'Dependency', 'Licenses', 'BeginTime', 'QOSMaxJobsPerUserLimit']
  const isObstacle = (reason: string) => !!obstacleOf({ ...job, state: 'PENDING', reason })

  assert.equal(
    held.map(isObstacle),
    held.map(() => true),
  )
  assert.equal(
    waiting.map(isObstacle),
    waiting.map(() => false),
  )
})

test.run()
