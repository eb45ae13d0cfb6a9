/** A fleet on a real cluster, with every way in which a site can fail really produced. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import type { Site } from '../../lib/fleet/fleet-file.ts'
import type { SiteStatus } from '../../lib/reports/fleet-table.ts'
import { readSite, standOf } from '../../lib/reports/site-report.ts'
import { takeLock } from '../../lib/run/lock.ts'
import { findHolder } from '../../lib/run/lock-holders.ts'
import { stateDirOf } from '../../lib/settings/layout.ts'
import { listProcesses, readProc } from '../../lib/system/processes.ts'
import { type FleetRig, failuresOf, fleetRig, untilFleet } from '../support/fleet-rig.ts'
import { isSweep, programOf } from '../support/places.ts'
import { publishes } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { type Cluster, clusterLacks, startCluster } from '../support/slurm.ts'
import { inSweep, sampled, test } from '../support/test.ts'

const lacks = clusterLacks()
const clusterTest = skipUnless(test, !lacks, lacks)
/** Slurm takes its time with these; how they are judged has tests without a cluster, which `npm test` has. */
const clusterTestInSweep = skipUnless(inSweep, !lacks, lacks)
const NODES = isSweep ? 10 : 5
const cluster = lacks ? undefined! : await startCluster({ nodes: NODES })
const runs = 'await sleep(600_000)'

/** The cases that take Slurm half a minute begin at once. */
const slow =
  lacks || !isSweep
    ? undefined
    : {
        lost: await loseNode(),
        late: await exceedTime(),
        forgotten: forgetJobs(),
        unbegun: followUnbegun(),
      }
for (const it of [slow?.forgotten, slow?.unbegun]) it?.catch(() => {}) // the tests of them say so

clusterTest('a fleet ends with the worst exit code; each site with its own', async () => {
  const quoted = `it's "the" $site  ü; \\`
  await using fleet = await fleetRig(cluster, {
    [quoted]: {},
    fails: { trainer: `console.log('no data'); process.exit(5)` },
    over: {
      core: { maxDiskMb: 5 },
      trainer: `fs.writeFileSync(dir + '/core.onnx', Buffer.alloc(9e6)); ${publishes}`,
    },
    full: { core: { maxDiskMb: 40, minFreeMb: 39 } },
    held: {},
    broken: {},
    silent: {},
  })
  const small = fleet.modelsDir('full')
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=30m', 'none', small])
  mkdirSync(stateDirOf(fleet.modelsDir('held')), { recursive: true })
  const lock = await takeLock(stateDirOf(fleet.modelsDir('held')))
  writeFileSync(join(fleet.modelsDir('broken'), '..', 'quotas.json'), '{ "jobs": {} }')
  mkdirSync(join(stateDirOf(fleet.modelsDir('silent')), 'slurm.log'), { recursive: true })
  try {
    const { exitCode, events, output } = await fleet.run()

    const failures = failuresOf(events)
    assert.equal(
      Object.fromEntries(Object.entries(failures).map(([site, it]) => [site, it.exitCode])),
      { [quoted]: 0, fails: 1, over: 2, full: 3, held: 75, broken: 78, silent: 3 },
      output,
    )
    assert.is(exitCode, 78)
    assert.match(failures[quoted]!.message, 'trained core; core, dpi, agent ready')
    assert.match(failures.fails!.message, "core's training ended with exit code 5")
    assert.match(failures.over!.message, 'Model too large for quota')
    assert.match(failures.full!.message, 'Cannot start core')
    assert.match(failures.held!.message, 'Another run holds')
    assert.match(failures.broken!.message, 'jobs.core is missing')
    assert.match(failures.silent!.message, /cannot write its output, .*slurm\.log/)
    assert.match(output, /"message":"1 of 7 sites done, 6 failed"/)
    const [begin, end] = [0, -1].map(place => fleet.journal('fails').at(place)!)
    assert.ok(begin?.event === 'run.start' && end?.event === 'run.done')
    assert.match(end.host!, /^n\d$/)
    assert.equal([end.host, end.slurmJob], [begin.host, begin.slurmJob])
  } finally {
    lock.release()
    execFileSync('umount', ['-l', small])
  }
})

skipUnless(
  sampled,
  !lacks,
  lacks,
)('sites train beside each other, but never two on one node', async () => {
  const names = Array.from({ length: isSweep ? 6 : 3 }, (_, index) => `site ${index}`)
  // In the sample each site trains one job, for long enough that two meet.
  const settings = { trainer: `await sleep(${isSweep ? 500 : 1500}); ${publishes}`, trainsAll: isSweep }
  const sites = Object.fromEntries(names.map(name => [name, settings]))
  await using fleet = await fleetRig(cluster, sites, { options: [`--exclude=n[1-${NODES - 2}]`] })

  const { exitCode, output } = await fleet.run(...(isSweep ? ['--retrain'] : []))

  assert.is(exitCode, 0, output)
  const spans = names.flatMap(name => trainingsOf(fleet.journal(name)))
  assert.is(spans.length, (isSweep ? 3 : 1) * names.length)
  const overlaps = overlapsOf(spans)
  assert.ok(overlaps.length > 0, 'some train at once')
  assert.equal(
    overlaps.filter(([a, b]) => a.host === b.host),
    [],
  )
})

clusterTestInSweep('a follower that is killed is followed by another, which finds the jobs', async () => {
  await using fleet = await fleetRig(cluster, {
    paris: { trainer: `await sleep(2000); ${publishes}` },
    rome: {},
  })
  const first = fleet.start()
  await untilFleet(first, 'site.start', 'paris')

  first.child.kill('SIGKILL')
  const { exitCode, events, output } = await fleet.run('--attach')

  assert.is(exitCode, 0, output)
  assert.match(failuresOf(events).paris!.message, 'trained core')
  assert.match(failuresOf(events).rome!.message, 'trained core')
})

clusterTestInSweep('Ctrl-C ends every job and leaves nothing on any node', async () => {
  await using fleet = await fleetRig(cluster, { paris: { trainer: runs }, rome: { trainer: runs } })
  const following = fleet.start()
  for (const site of ['paris', 'rome']) await untilTraining(fleet, site)

  following.child.kill('SIGINT')
  const { exitCode, events, output } = await following.ended

  assert.is(exitCode, 130, output)
  for (const site of ['paris', 'rome']) {
    assert.is(failuresOf(events)[site]!.exitCode, 143)
    assert.is(findHolder(stateDirOf(fleet.modelsDir(site))), undefined)
    assert.is(await cluster.jobNamed(`ransomeye:${site}`), undefined)
  }
})

clusterTestInSweep(
  'SIGTERM to whoever has attached ends the jobs, a terminal that is gone does not',
  async () => {
    await using fleet = await fleetRig(cluster, { paris: { trainer: runs } })
    await fleet.run('--detach')
    await untilTraining(fleet, 'paris')
    const attach = async (signal: NodeJS.Signals) => {
      const following = fleet.start('--attach')
      await untilFleet(following, 'site.start')
      following.child.kill(signal)
      return following.ended
    }

    const left = await attach('SIGHUP')
    const stillThere = await cluster.jobNamed('ransomeye:paris')
    const ended = await attach('SIGTERM')

    assert.is(left.signal, 'SIGHUP')
    assert.ok(stillThere)
    assert.is(ended.exitCode, 143, ended.output)
    assert.is(await cluster.jobNamed('ransomeye:paris'), undefined)
  },
)

clusterTestInSweep(
  '--detach leaves at once and says how to come back; --cancel ends what goes on',
  async () => {
    await using fleet = await fleetRig(cluster, { paris: { trainer: runs } })

    const detached = await fleet.run('--detach')
    await untilTraining(fleet, 'paris')
    const cancelled = await fleet.run('--cancel')

    assert.is(detached.exitCode, 0, detached.output)
    const end = detached.events.at(-1)!
    assert.ok(end.event === 'fleet.done')
    assert.is(end.message, '1 site submitted')
    assert.match(end.next!, /^node .*scripts\/fleet\.ts \S+fleet\.json --attach$/)
    assert.is(cancelled.exitCode, 0, cancelled.output)
    assert.is(findHolder(stateDirOf(fleet.modelsDir('paris'))), undefined)
  },
)

clusterTestInSweep('a site that is submitted twice trains once at a time, whoever submits it', async () => {
  await using fleet = await fleetRig(cluster, { paris: { trainer: `await sleep(1500); ${publishes}` } })
  const first = fleet.start('--retrain', 'paris')
  await untilFleet(first, 'site.start')

  const refused = await fleet.run()
  rmSync(join(stateDirOf(fleet.modelsDir('paris')), 'slurm.json')) // as for a submitter that does not know of it
  const second = await fleet.run()
  const { exitCode } = await first.ended

  assert.is(refused.exitCode, 75)
  assert.match(
    failuresOf(refused.events).paris!.message,
    'is still in the queue (RUNNING); follow it by --attach',
  )
  assert.equal([exitCode, second.exitCode], [0, 0], second.output)
  assert.match(failuresOf(second.events).paris!.message, 'nothing to do')
})

clusterTest('what Slurm refuses is refused with 78 and its line, and no other way of telling', async () => {
  await using fleet = await fleetRig(cluster, { paris: {} }, { gres: 'nothing:1' })

  const tried = await fleet.run('--dry-run')
  const { exitCode, events } = await fleet.run()
  const [paris] = await statusesOf(fleet)

  assert.is(exitCode, 78)
  assert.match(
    failuresOf(events).paris!.message,
    'Slurm refuses it: Invalid generic resource (gres) specification',
  )
  assert.equal([paris!.state, paris!.lastJob?.exitCode, paris!.lastJob?.slurmJob], ['failed', 78, null])
  assert.is(tried.exitCode, 78)
  assert.match(tried.output, 'Slurm refuses it')
})

clusterTestInSweep('a refusal is what a site shows, though the job before went well', async () => {
  await using fleet = await fleetRig(cluster, { paris: {} })
  const before = await fleet.run()
  const file = fleet.path('fleet.json')
  const { slurm, ...rest } = JSON.parse(readFileSync(file, 'utf8'))
  writeFileSync(file, JSON.stringify({ ...rest, slurm: { ...slurm, gres: 'nothing:1' } }))

  const { exitCode } = await fleet.run('--retrain')
  const [paris] = await statusesOf(fleet)
  const cancelled = await fleet.run('--cancel')
  const argv = [...programOf('scripts/fleet.ts'), file, '--dry-run']
  const env = { ...process.env, ...cluster.env }
  const { stdout } = spawnSync(process.execPath, argv, { env, encoding: 'utf8' })

  assert.match(stdout, /^paris: Slurm refuses it: .*\nSlurm would take 0 of 1 site\n$/)
  assert.equal([before.exitCode, exitCode], [0, 78])
  assert.equal([paris!.state, paris!.lastJob?.exitCode], ['failed', 78])
  assert.is(cancelled.exitCode, 0)
})

clusterTest(
  'a quota that no node has room for is refused with what was asked for and the key to raise',
  async () => {
    await using fleet = await fleetRig(cluster, { paris: { core: { maxDiskMb: 30_000 } } })

    const { exitCode, events } = await fleet.run()

    assert.is(exitCode, 78)
    assert.match(
      failuresOf(events).paris!.message,
      "Temporary disk specification can not be satisfied: --tmp=30000M was asked for, the largest of its quotas; raise the nodes' TmpDisk",
    )
  },
)

clusterTestInSweep(
  'a project or Node.js that the node has not is told by its key, at once and later',
  async () => {
    await using noProject = await fleetRig(cluster, { paris: {} }, {}, '/opt/nope')
    await using noNode = await fleetRig(cluster, { paris: {} })
    const file = noNode.path('fleet.json')
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), node: '/opt/node' }))

    const tries = [
      { fleet: noProject, key: 'project', path: '/opt/nope', code: 3 },
      { fleet: noNode, key: 'node', path: '/opt/node', code: 78 },
    ]
    const ends = await Promise.all(tries.map(async it => ({ ...it, ...(await it.fleet.run()) })))

    for (const { fleet, key, path, code, exitCode, events } of ends) {
      const [paris] = await statusesOf(fleet)
      const message = new RegExp(`^${key} ${path} is not on n\\d+; see ${key} in fleet\\.json$`)
      assert.is(exitCode, code)
      assert.match(failuresOf(events).paris!.message, message)
      assert.equal([paris!.state, paris!.lastJob?.exitCode], ['failed', code])
      assert.match(paris!.lastJob!.message, message)
    }
  },
)

clusterTestInSweep('a job that Slurm calls completed is a failure if its run never began', async () => {
  await using broken = await startCluster({ nodes: 1 })
  await breakNode(broken, 'n1')
  await using fleet = await fleetRig(broken, { paris: {} })
  const { events } = await fleet.run('--detach')
  const slurmJob = events.flatMap(event => (event.event === 'site.submit' ? event.slurmJob : []))[0]!
  const stateOf = () => broken.run('squeue', '-h', '-t', 'all', '-j', String(slurmJob), '-o', '%T')
  await until('Slurm says it is done', async () => (await stateOf()) === 'COMPLETED')

  const [paris] = await statusesOf(fleet)

  assert.equal([paris!.state, paris!.lastJob?.exitCode], ['failed', 75])
  assert.is(paris!.lastJob?.message, neverBegan(slurmJob))
})

clusterTestInSweep('a run that is killed ends with 1 and names the signal', async () => {
  await using fleet = await fleetRig(cluster, { paris: { trainer: runs } })
  const following = fleet.start()
  const stateDir = stateDirOf(fleet.modelsDir('paris'))
  await untilTraining(fleet, 'paris')

  process.kill(findHolder(stateDir)!.pid!, 'SIGKILL')
  const { exitCode, events } = await following.ended

  assert.is(exitCode, 1)
  assert.match(
    failuresOf(events).paris!.message,
    /was killed by SIGKILL on n\d+, perhaps for too much memory/,
  )
})

clusterTestInSweep('a job that somebody cancels ends with 143', async () => {
  await using fleet = await fleetRig(cluster, { paris: { trainer: runs } })
  const following = fleet.start()
  const { slurmJob } = await untilFleet(following, 'site.submit')
  await untilTraining(fleet, 'paris')

  await cluster.run('scancel', String(slurmJob))
  const { exitCode, events } = await following.ended

  assert.is(exitCode, 143)
  // Slurm signals the training beside its run: which of the two hears it first is told as the reason.
  assert.match(failuresOf(events).paris!.message, `its job ${slurmJob} was cancelled`)
})

clusterTestInSweep(
  'a job that is held is a failure with its reason, and no second one is submitted beside it',
  async () => {
    await using fleet = await fleetRig(cluster, { paris: {} }, { options: ['--hold'] })

    const { exitCode, events } = await fleet.run()
    const [held] = await statusesOf(fleet)
    const again = await fleet.run()
    const report = await readSite(siteOf(fleet, 'paris'), 1)
    const cancelled = await fleet.run('--cancel')

    assert.is(exitCode, 75)
    assert.match(
      failuresOf(events).paris!.message,
      /Slurm holds its job \d+ \(JobHeldUser\); scontrol release \d+/,
    )
    assert.is(held!.state, 'held')
    assert.is(standOf(report), 'failed')
    assert.match(report.jobEnd!.message, 'Slurm holds its job')
    assert.is(again.exitCode, 75)
    assert.match(failuresOf(again.events).paris!.message, /its job \d+ is still in the queue \(PENDING\)/)
    assert.is(cancelled.exitCode, 0, cancelled.output)
    assert.is(await cluster.jobNamed('ransomeye:paris'), undefined)
  },
)

clusterTestInSweep('a job that an administrator puts back into the queue trains no second time', async () => {
  await using fleet = await fleetRig(cluster, { paris: { trainer: runs } })
  const following = fleet.start()
  const { slurmJob } = await untilFleet(following, 'site.submit')
  await untilTraining(fleet, 'paris')

  await cluster.run('scontrol', 'update', `JobId=${slurmJob}`, 'Requeue=1')
  await cluster.run('scontrol', 'requeue', String(slurmJob))
  const { exitCode, events } = await following.ended

  assert.is(exitCode, 75)
  assert.match(failuresOf(events).paris!.message, `somebody has put its job ${slurmJob} back into the queue`)
  // A node takes no job that it still ends.
  const isEnding = () =>
    listProcesses().some(({ pid }) => readProc(`${pid}/cmdline`)?.includes(`[${slurmJob}.`))
  await until('its first start has ended on its node', () => !isEnding())
  await cluster.run('scontrol', 'update', `JobId=${slurmJob}`, 'StartTime=now')
  const stateOf = () => cluster.run('squeue', '-h', '-t', 'all', '-j', String(slurmJob), '-o', '%T')
  await until('its second start has ended', async () => (await stateOf()) === 'FAILED', 50_000)
  const attached = await fleet.run('--attach')
  assert.is(attached.exitCode, 75, attached.output)
  assert.match(failuresOf(attached.events).paris!.message, 'Slurm has started this job again; it trains once')
  assert.is(fleet.journal('paris').filter(({ event }) => event === 'train.start').length, 1)
})

clusterTestInSweep('a controller that is away is no failure: the fleet goes on when it is back', async () => {
  await using fleet = await fleetRig(cluster, { paris: { trainer: `await sleep(3000); ${publishes}` } })
  const following = fleet.start()
  await untilFleet(following, 'site.start', 'paris')

  cluster.signalController('SIGSTOP')
  try {
    await untilFleet(following, 'slurm.away')
    await until(
      'the run has ended',
      () => fleet.journal('paris').some(({ event }) => event === 'run.done'),
      50_000,
    )
  } finally {
    cluster.signalController('SIGCONT')
  }
  const { exitCode, events, output } = await following.ended

  assert.is(exitCode, 0, output)
  assert.ok(events.some(({ event }) => event === 'slurm.back'))
})

clusterTestInSweep(
  'a node that is lost ends its site with 75: it is not started again elsewhere',
  async () => {
    await using fleet = slow!.lost.fleet
    const { exitCode, events, output } = await slow!.lost.ended

    assert.is(exitCode, 75, output)
    assert.match(
      failuresOf(events).paris!.message,
      /^node n\d+ is lost; its training may still run there and hold the lock; not restarted$/,
    )
    const stateDir = stateDirOf(fleet.modelsDir('paris'))
    const { pid } = findHolder(stateDir)!
    process.kill(pid!, 'SIGKILL')
    await until('its training has ended too', () => !findHolder(stateDir))
  },
)

clusterTestInSweep('a job over its time limit ends with 1 and names the key to raise', async () => {
  await using _ = slow!.late.fleet
  const { exitCode, events, output } = await slow!.late.ended

  assert.is(exitCode, 1, output)
  assert.match(failuresOf(events).paris!.message, /time limit, 5 min, on n\d+; raise slurm\.timeMinutes/)
})

clusterTestInSweep(
  'a job that has left the queue is known by the end in its journal, else not at all',
  async () => {
    const { exitCode, events, output } = await slow!.forgotten

    assert.is(exitCode, 1, output)
    const { told, untold } = failuresOf(events)
    assert.match(told!.message, "core's training ended with exit code 7")
    assert.match(
      untold!.message,
      /^unknown: its job \d+ has left the queue without an end(; its last words were ".*")?; look at the log \S+, the site's .trainer\/events.jsonl and sacct -j \d+$/,
    )
  },
)

clusterTestInSweep(
  'whoever follows a job without a run waits for files that come late, and ends with 75',
  async () => {
    const { exitCode, events, output } = await slow!.unbegun

    assert.is(exitCode, 75, output)
    const { slurmJob } = events.find(it => it.event === 'site.submit')!
    assert.is(failuresOf(events).paris!.message, neverBegan(slurmJob))
  },
)

test.after(async () => cluster?.[Symbol.asyncDispose]())

test.run()

async function loseNode() {
  const fleet = await fleetRig(cluster, { paris: { trainer: runs } })
  const following = fleet.start()
  const { host } = await untilFleet(following, 'site.start')
  await untilTraining(fleet, 'paris')
  cluster.killNode(host)
  return { fleet, ended: following.ended }
}

/** A cluster that forgets a job soon after its end, while its follower is asleep. */
async function forgetJobs() {
  await using forgetful = await startCluster({ nodes: 2, minJobAge: 2 })
  const told = { trainer: 'await sleep(1000); process.exit(7)' }
  await using fleet = await fleetRig(forgetful, { told, untold: { trainer: runs } })
  const following = fleet.start()
  for (const site of ['told', 'untold']) await untilTraining(fleet, site)
  following.child.kill('SIGSTOP')
  process.kill(findHolder(stateDirOf(fleet.modelsDir('untold')))!.pid!, 'SIGKILL')
  await until('both are gone', async () => !(await forgetful.run('squeue', '-h', '-t', 'all')), 50_000)
  following.child.kill('SIGCONT')
  return await following.ended // before both are ended
}

/** A follower of a job whose node fails before its script. */
async function followUnbegun() {
  await using broken = await startCluster({ nodes: 1 })
  await breakNode(broken, 'n1')
  await using fleet = await fleetRig(broken, { paris: {} })
  return await fleet.run() // before both are ended
}

function neverBegan(slurmJob: number): string {
  return `Slurm says its job ${slurmJob} is done on n1, but its run never began: see slurmd's log on n1 and sinfo -R`
}

async function exceedTime() {
  const fleet = await fleetRig(cluster, { paris: { trainer: runs } }, { timeMinutes: 5 })
  const following = fleet.start()
  const { slurmJob } = await untilFleet(following, 'site.start')
  await untilTraining(fleet, 'paris')
  await cluster.run('scontrol', 'update', `JobId=${slurmJob}`, 'EndTime=now+1')
  return { fleet, ended: following.ended }
}

/** Make a node one whose jobs fail before their script: its daemon cannot follow their processes. */
async function breakNode({ env, killNode, startNode, run }: Cluster, node: string): Promise<void> {
  const conf = readFileSync(env.SLURM_CONF, 'utf8')
  writeFileSync(env.SLURM_CONF, conf.replace('proctrack/linuxproc', 'proctrack/cgroup'))
  killNode(node)
  startNode(node)
  const log = env.SLURM_CONF.replace(/slurm\.conf$/, `${node}/log`)
  const starts = () => readFileSync(log, 'utf8').match(/slurmd started on/g)?.length ?? 0
  await until('its daemon has started again', () => starts() > 1)
  await until('it is idle', async () => (await run('sinfo', '-h', '-n', node, '-o', '%t')) === 'idle')
}

async function statusesOf(fleet: FleetRig): Promise<SiteStatus[]> {
  const { output } = await fleet.run('--status')
  return output
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
}

function siteOf(fleet: FleetRig, name: string): Site {
  return { name, modelsDir: fleet.modelsDir(name), quotasFile: fleet.rig(name).path('quotas.json') }
}

function untilTraining(fleet: FleetRig, site: string): Promise<unknown> {
  const trains = () => fleet.journal(site).some(({ event }) => event === 'train.start')
  return until(`${site} trains`, trains, 50_000)
}

type Span = { host: string; start: string; end: string }

function trainingsOf(events: TrainerEvent[]): Span[] {
  const spans: Span[] = []
  let host = ''
  for (const event of events) {
    if (event.event === 'run.start') host = event.host!
    if (event.event === 'train.start') spans.push({ host, start: event.time, end: '' })
    if (event.event === 'train.exit') spans.at(-1)!.end = event.time
  }
  return spans
}

function overlapsOf(spans: Span[]): [Span, Span][] {
  return spans.flatMap((a, index) =>
    spans
      .slice(index + 1)
      .flatMap((b): [Span, Span][] => (a.start < b.end && b.start < a.end ? [[a, b]] : [])),
  )
}
