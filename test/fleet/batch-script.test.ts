import { spawnSync } from 'node:child_process'
import * as assert from 'uvu/assert'
import { batchOptions, batchScript } from '../../lib/fleet/batch-script.ts'
import type { Fleet, Site } from '../../lib/fleet/fleet-file.ts'
import { readQuotas } from '../../lib/settings/quotas-file.ts'
import { trainerRig } from '../support/rig.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const nasty = `it's "a" $(touch /tmp/never) \`id\` \\ %j !x  *`

function fleetIn(project: string): Fleet {
  const slurm = { gres: 'trainer:1', options: ['--constraint=ssd'], timeMinutes: 90 }
  return {
    file: '/f/fleet.json',
    slurm,
    project,
    node: '/usr/bin/echo',
    scratch: undefined,
    metrics: undefined,
    sites: [],
    isWhole: true,
  }
}

const site: Site = { name: nasty, modelsDir: `/m/${nasty}`, quotasFile: `/q/${nasty}` }

function runScript(script: string, env: Record<string, string> = {}) {
  return spawnSync('bash', ['-s'], {
    input: script,
    encoding: 'utf8',
    env: { PATH: '/usr/bin:/bin', ...env },
  })
}

test('the batch script hands on every word as it is', async () => {
  await using box = await sandbox({ [`${nasty}/tasks.ts`]: '' })

  const { stdout, status } = runScript(batchScript(fleetIn(box.path(nasty)), site, true))

  assert.is(status, 0)
  assert.is(
    stdout,
    `--import tsx tasks.ts --models-dir ${site.modelsDir} --quotas ${site.quotasFile} --retrain\n`,
  )
})

test('the batch script runs the plain JavaScript of an installation', async () => {
  await using box = await sandbox({ 'tasks.js': '' })

  const { stdout } = runScript(batchScript(fleetIn(box.dir), site, false))

  assert.match(stdout, /^tasks\.js --models-dir /)
})

test('the batch script says which key is wrong on the node, and trains nothing', async () => {
  await using box = await sandbox({ 'tasks.ts': '', 'empty/file': '', [nasty]: '' })
  const ends = (fleet: Fleet) => {
    const { stdout, status, stderr } = runScript(batchScript(fleet, site, false), { SLURMD_NODENAME: 'n1' })
    assert.is(stdout, '')
    return [status, stderr.trimEnd().split('\n').at(-1)]
  }

  assert.equal(ends(fleetIn('/opt/nope')), [3, 'project /opt/nope is not on n1; see project in fleet.json'])
  assert.equal(ends(fleetIn(box.path('empty')))[0], 3)
  for (const node of ['/opt/node', box.dir, box.path(nasty)])
    assert.equal(ends({ ...fleetIn(box.dir), node }), [
      78,
      `node ${node} is not on n1; see node in fleet.json`,
    ])
})

test('a batch script that Slurm starts again ends with 75, and trains nothing', async () => {
  await using box = await sandbox({ 'tasks.ts': '' })

  const script = batchScript(fleetIn(box.dir), site, false)
  const { stdout, status } = runScript(script, { SLURM_RESTART_COUNT: '1' })

  assert.equal([status, stdout], [75, ''])
})

test("batchOptions() asks for the largest quota, and lets the file's own options undo nothing", async () => {
  await using rig = await trainerRig({ dpi: { maxDiskMb: 300 } })
  const fleet = fleetIn('/p')
  fleet.slurm.options.push('--requeue')

  const options = batchOptions(
    fleet,
    { ...site, name: 'paris', modelsDir: '/m/100%j' },
    readQuotas(rig.path('quotas.json')),
  )

  assert.ok(options.includes('--tmp=300M'))
  assert.ok(options.includes('--time=90'))
  assert.ok(options.includes('--output=/m/100%%j/.trainer/slurm.log'))
  assert.ok(options.indexOf('--no-requeue') > options.indexOf('--requeue'))
})

test.run()
