import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { drawFleet, siteStatus } from '../../lib/reports/fleet-table.ts'
import { readSite } from '../../lib/reports/site-report.ts'
import { writeReport } from '../../scripts/report.ts'
import { failure } from '../support/failure.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

type Past = { host: string; fromS: number; toS: number; exitCode?: number; message?: string }

const evil = '<img src=x onerror=alert(1)>'
const job = { maxDiskMb: 20, train: ['true'] }
const quotas = { jobs: { core: job, dpi: job, agent: job } }
const timeOf = (seconds: number) => new Date(Date.UTC(2026, 2, 1, 10, 0, seconds)).toISOString()

/** A fleet whose sites have a valid core model each, and one past run that trained core. */
async function fleetOf(sites: Record<string, Past>): Promise<Sandbox> {
  const box = await sandbox({ 'quotas.json': JSON.stringify(quotas) })
  const places: Record<string, unknown> = {}
  for (const [index, [name, past]] of Object.entries(sites).entries()) {
    mkdirSync(box.path(`m${index}`, '.trainer'), { recursive: true })
    mkdirSync(box.path(`m${index}`, 'core'))
    writeFileSync(box.path(`m${index}`, 'core', 'core.onnx'), onnxModel())
    writeFileSync(box.path(`m${index}`, '.trainer', 'events.jsonl'), journalOf(past))
    places[name] = { modelsDir: `m${index}`, quotas: 'quotas.json' }
  }
  writeFileSync(box.path('fleet.json'), JSON.stringify({ sites: places }))
  return box
}

function journalOf({ host, fromS, toS, exitCode = 0, message = 'trained core' }: Past): string {
  const end = exitCode
    ? { event: 'job.fail', code: 'training-failed', message }
    : { event: 'job.done', seconds: 1, usedBytes: 9 }
  const events = [
    [fromS, { event: 'run.start', modelsDir: '/m', jobs: ['core'], version: '1', host, slurmJob: 17 }],
    [fromS, { event: 'day1.check', job: 'core', models: [], missing: true, reason: 'none' }],
    [fromS, { event: 'job.start', job: 'core', dir: '/m/core', limitBytes: 99, guarantee: 'watch' }],
    [fromS, { event: 'train.start', job: 'core', pid: 1, argv: ['true'] }],
    [toS, { event: 'train.exit', job: 'core', exitCode, signal: null, seconds: toS - fromS }],
    [toS, { job: 'core', ...end }],
    [toS, { event: 'run.done', exitCode, seconds: toS - fromS, message }],
  ] as const
  return events
    .map(
      ([seconds, body]) => `${JSON.stringify({ time: timeOf(seconds), level: 'info', run: 'r', ...body })}\n`,
    )
    .join('')
}

async function reportOf(box: Sandbox): Promise<string> {
  await writeReport(['--fleet', box.path('fleet.json'), '--out', box.path('report.html')])
  return readFileSync(box.path('report.html'), 'utf8')
}

test('report --fleet shows every site, why one failed, and no two trainings on one node at once', async () => {
  await using box = await fleetOf({
    paris: { host: 'n1', fromS: 0, toS: 10 },
    [evil]: { host: 'n1', fromS: 10, toS: 20, exitCode: 1, message: `failed of ${evil}` },
    oslo: { host: 'n2', fromS: 5, toS: 15 },
  })

  const page = await reportOf(box)

  assert.match(page, '1 site of 3 failed.')
  assert.match(page, 'No two trainings on one node at once.')
  assert.match(page, 'failed of &#60;img src=x')
  assert.not.match(page, evil)
  assert.not.match(page, 'fill="var(--bad)"')
})

test('report --fleet shows two trainings on one node at once as wrong', async () => {
  await using box = await fleetOf({
    paris: { host: 'n1', fromS: 0, toS: 10 },
    rome: { host: 'n1', fromS: 9, toS: 20 },
  })

  const page = await reportOf(box)

  assert.match(page, '1 training overlapped another on its node.')
  assert.match(page, 'rome&#39;s core (1 Mar, 10:00:09) began on n1 during another training.')
  assert.match(page, 'fill="var(--bad)"')
})

test('report takes --fleet or a models folder, not both', async () => {
  await using box = await fleetOf({ paris: { host: 'n1', fromS: 0, toS: 10 } })

  const error = await failure(() => writeReport(['--fleet', box.path('fleet.json'), '--models-dir', '/m']))

  assert.is(error.exitCode, 64)
})

test('the table of a fleet has a line a site, and below it why one is not as it should be', async () => {
  await using box = await fleetOf({
    paris: { host: 'n1', fromS: 0, toS: 10 },
    rome: { host: 'n2', fromS: 0, toS: 10, exitCode: 2, message: 'Model too large for quota' },
    oslo: { host: 'n2', fromS: 20, toS: 30 },
  })
  const none = { jobId: 17, node: undefined, reason: undefined }
  const slurm = [
    { ...none, state: 'running', node: 'n7' },
    { ...none, state: 'gone' },
    { ...none, state: 'waiting', reason: 'Resources' },
  ] as const
  const statuses = []
  for (const [index, name] of ['paris', 'rome', 'oslo'].entries()) {
    const place = { name, modelsDir: box.path(`m${index}`), quotasFile: box.path('quotas.json') }
    statuses.push(siteStatus(await readSite(place, 5), slurm[index]!))
  }

  const [head, ...lines] = drawFleet(statuses, Date.parse(timeOf(0)) + 3 * 60 * 60_000).split('\n')

  assert.match(head!, /^site {3}state {4}node {2}last run {14}core {3}dpi/)
  assert.match(
    lines[0]!,
    /^paris {2}running {2}n7 {4}exit code 0, 3 h ago {2}valid {2}not valid {2}not valid$/,
  )
  assert.match(lines[1]!, /^rome {3}failed {3}n2 {4}exit code 2, 3 h ago/)
  assert.match(lines[2]!, /^oslo {3}waiting {2}- {5}exit code 0/)
  assert.ok(lines.includes('rome: Model too large for quota'))
  assert.ok(lines.includes('oslo: is waiting: Resources'))
})

test('the name of a node, which a journal has, does nothing to a terminal', async () => {
  await using box = await fleetOf({ paris: { host: 'n1\x1b[2J', fromS: 0, toS: 10 } })
  const place = { name: 'paris', modelsDir: box.path('m0'), quotasFile: box.path('quotas.json') }
  const none = { jobId: undefined, node: undefined, reason: undefined, state: 'none' } as const

  const table = drawFleet([siteStatus(await readSite(place, 5), none)])

  assert.match(table, / n1\\x1b\[2J /)
})

test('a site that cannot be read keeps no other from being shown', async () => {
  await using box = await fleetOf({ paris: { host: 'n1', fromS: 0, toS: 10 } })

  const site = await readSite({ name: 'rome', modelsDir: box.path('m0'), quotasFile: '/nowhere.json' }, 1)

  assert.match(site.fault ?? '', 'Cannot read the quotas file')
})

test('a site with a folder that this user cannot look into keeps no other from being shown', async () => {
  await using box = await fleetOf({ paris: { host: 'n1', fromS: 0, toS: 10 } })
  mkdirSync(box.path('m0/core/generations'))
  symlinkSync('generations/1', box.path('m0/core/current'))
  for (const folder of ['', 'm0', 'm0/.trainer']) chmodSync(box.path(folder), 0o755)
  chmodSync(box.path('m0/core'), 0o600)
  const place = { name: 'paris', modelsDir: box.path('m0'), quotasFile: box.path('quotas.json') }

  const { fault } = await asNobody(() => readSite(place, 1))
  chmodSync(box.path('m0/core'), 0o755)

  assert.match(fault ?? '', /^Cannot look into \S+\/core: EACCES/)
})

test.run()
