import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { type EventBody, stampEvent } from '../../lib/events.ts'
import { drawFleet, type SlurmState, siteStatus } from '../../lib/reports/fleet-table.ts'
import { drawFleetPage } from '../../lib/reports/html/fleet-page.ts'
import { readSite, standOf } from '../../lib/reports/site-report.ts'
import { keepOutcome, writeRecord } from '../../lib/run/job-record.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const HOUR_S = 3600
const gone: SlurmState = { jobId: 17, state: 'gone', node: undefined, reason: undefined }
const job = { maxDiskMb: 20, train: ['true'] }

/** The events of a run that trained core; without an end if it has no exit code. */
function runOf(slurmJob: number, exitCode: number | undefined, message = ''): EventBody[] {
  const begin: EventBody[] = [
    { event: 'run.start', modelsDir: '/m', jobs: ['core'], version: '1', host: 'n1', slurmJob },
    { event: 'day1.check', job: 'core', models: [], missing: true, reason: 'none' },
    { event: 'job.start', job: 'core', dir: '/m/core', limitBytes: 99, guarantee: 'watch' },
  ]
  if (exitCode === undefined) return begin
  const failure: EventBody = { event: 'job.fail', job: 'core', code: 'training-failed', message }
  return [...begin, failure, { event: 'run.done', exitCode, seconds: 1, message }]
}

/** A site with runs in its journal, each begun so many seconds ago. */
async function siteWith(...runs: { secondsAgo: number; events: EventBody[] }[]) {
  const box = await sandbox({ 'quotas.json': JSON.stringify({ jobs: { core: job, dpi: job, agent: job } }) })
  mkdirSync(box.path('m', '.trainer'), { recursive: true })
  const lines = runs.flatMap(({ secondsAgo, events }, index) =>
    events.map(body => {
      const time = new Date(Date.now() - 1000 * secondsAgo).toISOString()
      return `${JSON.stringify({ ...stampEvent(`r${index}`, body), time })}\n`
    }),
  )
  writeFileSync(box.path('m', '.trainer', 'events.jsonl'), lines.join(''))
  const place = { name: 'paris', modelsDir: box.path('m'), quotasFile: box.path('quotas.json') }
  const journal = { inode: 0, head: '', bytes: 0 }
  const record = { jobId: 17, submittedAt: new Date().toISOString(), journal }
  await writeRecord(place, record)
  return { ...box, place }
}

test('how a job came out that left no run is what a site shows, in the table and on the page', async () => {
  await using site = await siteWith({ secondsAgo: HOUR_S, events: runOf(16, 0, 'trained core') })
  await keepOutcome(site.place, { exitCode: 3, message: 'project /opt/nope is not on n1' }, 17)

  const report = await readSite(site.place, 1)
  const table = drawFleet([siteStatus(report, gone)])
  const page = drawFleetPage('fleet.json', [report], new Date())

  assert.match(table, /^paris {2}failed {2}- {5}exit code 3, 0 min ago/m)
  assert.match(table, 'paris: project /opt/nope is not on n1')
  assert.match(page, '1 site of 1 failed.')
  assert.match(page, 'project /opt/nope is not on n1')
  assert.match(page, 'exit code 3')
})

test('a run that is newer than how the last job came out is what a site shows', async () => {
  await using site = await siteWith({ secondsAgo: -HOUR_S, events: runOf(16, 0, 'trained core') })
  await keepOutcome(site.place, { exitCode: 3, message: 'project /opt/nope is not on n1' }, 17)

  const status = siteStatus(await readSite(site.place, 1), gone)

  assert.equal([status.state, status.lastJob, status.lastRun?.exitCode], ['done', null, 0])
})

test('how an earlier job came out does not go to the one that was submitted after it', async () => {
  await using site = await siteWith()
  const record = readFileSync(site.path('m', '.trainer', 'slurm.json'), 'utf8')

  await keepOutcome(site.place, { exitCode: 1, message: 'it failed' }, 16)

  assert.is(readFileSync(site.path('m', '.trainer', 'slurm.json'), 'utf8'), record)
})

test('a refusal is kept where no job was ever submitted, and a message of any length can be read again', async () => {
  await using site = await siteWith()
  writeFileSync(site.path('m', '.trainer', 'slurm.json'), 'no record')

  await keepOutcome(site.place, { exitCode: 78, message: '\0€'.repeat(9000) })
  const { state, lastJob } = siteStatus(await readSite(site.place, 1), {
    ...gone,
    jobId: undefined,
    state: 'none',
  })

  assert.equal([state, lastJob?.exitCode, lastJob?.slurmJob], ['failed', 78, null])
})

test('a site that trains is not blamed for its run before, nor for the models that it makes', async () => {
  await using site = await siteWith(
    { secondsAgo: HOUR_S, events: runOf(16, 1, 'no data') },
    { secondsAgo: 60, events: runOf(17, undefined) },
  )

  const status = siteStatus(await readSite(site.place, 1), { ...gone, state: 'running', node: 'n1' })

  const [, line, ...more] = drawFleet([status]).split('\n')
  assert.match(line!, /^paris {2}running core {2}n1 /)
  assert.equal(more, [])
})

for (const [what, runs, expected] of [
  ['that was cut off', [{ secondsAgo: 60, events: runOf(17, undefined) }], 'failed'],
  [
    'that failed before the models were only looked at',
    [
      { secondsAgo: HOUR_S, events: runOf(17, 1, 'no data') },
      { secondsAgo: 60, events: runOf(0, 0).filter(({ event }) => event.startsWith('run.')) },
    ],
    'failed',
  ],
  ['that went well', [{ secondsAgo: 60, events: runOf(17, 0) }], 'done'],
  ['that was never there', [], 'never'],
] as const) {
  test(`the page and the status take a run ${what} for the same`, async () => {
    await using site = await siteWith(...runs)
    const report = await readSite(site.place, 1)

    assert.is(standOf(report), expected)
    assert.is(siteStatus(report, gone).state, expected)
    const failed = expected === 'failed' ? '1 site of 1 failed.' : 'No site failed.'
    assert.match(drawFleetPage('fleet.json', [report], new Date()), failed)
  })
}

test.run()
