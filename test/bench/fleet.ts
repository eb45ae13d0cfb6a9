import { readFileSync, writeFileSync } from 'node:fs'
import { bundle } from '../../debian/build/bundle.ts'
import { TrainerError } from '../../lib/errors.ts'
import type { TrainerEvent } from '../../lib/events.ts'
import { jobNames } from '../../lib/quotas.ts'
import { type FleetRig, fleetRig } from '../support/fleet-rig.ts'
import { root } from '../support/places.ts'
import { publishes } from '../support/rig.ts'
import { sandbox } from '../support/sandbox.ts'
import { type Cluster, clusterLacks, startCluster } from '../support/slurm.ts'
import { elapsedMs, median, runProgram } from './rounds.ts'
import { type Bench, formatMs, type Row } from './table.ts'

const NODES = 3
const SITES = 12
const TRAINING_MS = 2000
const SUBMITTED = 300
const IDEAL_MS = (SITES * jobNames.length * TRAINING_MS) / NODES

/** A fleet on a real Slurm whose nodes share this machine's cores, and have the program as the package brings it. */
export async function* measureFleet({ signal }: Bench): AsyncGenerator<Row> {
  const lacks = clusterLacks()
  if (lacks) throw new TrainerError('config', lacks)
  await using program = await sandbox()
  await bundle(root, program.dir)
  await using cluster = await startCluster({ nodes: NODES })
  for await (const row of training(cluster, program.dir, signal)) yield row
  yield await submitting(cluster, signal)
}

async function* training(cluster: Cluster, program: string, signal: AbortSignal): AsyncGenerator<Row> {
  const trainer = `await sleep(${TRAINING_MS}); ${publishes}`
  const names = namesOf(SITES)
  // Slurm's own squeue, and a mark for each time that it is called.
  await using box = await sandbox()
  writeFileSync(
    box.path('squeue'),
    `#!/bin/sh\necho >> '${box.path('calls')}'\nexec /usr/bin/squeue "$@"\n`,
    {
      mode: 0o755,
    },
  )
  const env = { ...cluster.env, PATH: `${box.dir}:${process.env.PATH}` }
  const settings = Object.fromEntries(names.map(name => [name, { trainer, trainsAll: true }]))
  await using fleet = await fleetRig({ ...cluster, env }, settings, {}, program)

  const fleetMs = await elapsedMs(() => assertDone(fleet.run('--poll', '5s')))
  const calls = readFileSync(box.path('calls')).length
  const gapsMs = gapsOf(names.map(name => fleet.journal(name)))
  const aloneMs = await elapsedMs(async () => {
    for (const name of names) {
      signal.throwIfAborted()
      await assertDone(fleet.rig(name).run(['--retrain']))
    }
  })
  const what = `${SITES} sites × ${jobNames.length} trainings of ${TRAINING_MS / 1000} s on ${NODES} nodes`
  yield {
    what,
    ours: fleetMs,
    beside: { what: 'the trainings alone, divided by the nodes', value: IDEAL_MS },
    format: formatMs,
    aim: { atMost: 1.15, of: 'ratio' },
  }
  yield {
    what,
    ours: fleetMs,
    beside: { what: '`tasks.ts` for one site after another', value: aloneMs },
    format: formatMs,
  }
  yield {
    what: "from a training's end to the next one's begin on its node",
    ours: median(gapsMs),
    format: formatMs,
    aim: { atMost: 300, of: 'ours' },
  }
  yield {
    what: 'calls to the controller a minute, while sites end all the time',
    ours: (calls * 60_000) / fleetMs,
    format: value => value.toFixed(1),
  }
}

/** From each training's end to the begin of the one after it on the same node, in milliseconds. */
function gapsOf(journals: TrainerEvent[][]): number[] {
  const marks = journals.flatMap(events => {
    let host = ''
    return events.flatMap(event => {
      if (event.event === 'run.start') host = event.host ?? ''
      const isMark = event.event === 'train.start' || event.event === 'train.exit'
      return isMark ? [{ host, kind: event.event, atMs: Date.parse(event.time) }] : []
    })
  })
  const ordered = marks.sort((a, b) => (a.host === b.host ? a.atMs - b.atMs : a.host < b.host ? -1 : 1))
  return ordered.flatMap((mark, index) => {
    const last = ordered[index - 1]
    const isGap = mark.kind === 'train.start' && last?.kind === 'train.exit' && last.host === mark.host
    return isGap ? [mark.atMs - last.atMs] : []
  })
}

async function submitting(cluster: Cluster, signal: AbortSignal): Promise<Row> {
  const names = namesOf(SUBMITTED)
  const settings = Object.fromEntries(names.map(name => [name, {}]))
  await using fleet = await fleetRig(cluster, settings, { options: ['--hold'] })
  const { events } = await assertDone(fleet.run('--detach'))
  const times = events.flatMap(it => (it.event === 'site.submit' ? [Date.parse(it.time)] : []))
  const began = Date.parse(events.find(it => it.event === 'fleet.start')!.time)
  await fleet.run('--cancel')
  return {
    what: `submission of a site, of ${SUBMITTED}: its id from Slurm, on the disk`,
    ours: (Math.max(...times) - began) / SUBMITTED,
    beside: { what: '`sbatch` in a loop of the shell', value: await plainSubmissionMs(cluster, signal) },
    format: formatMs,
    aim: { atMost: 10, of: 'ours' },
  }
}

/** Measure Slurm's own command with jobs that do nothing, one after another. */
async function plainSubmissionMs(cluster: Cluster, signal: AbortSignal): Promise<number> {
  const count = 100
  const loop = `for n in $(seq ${count}); do echo '#!/bin/sh' | sbatch --hold --job-name=plain || exit; done`
  const env = { ...process.env, ...cluster.env }
  const ms = await elapsedMs(() => runProgram(['bash', '-c', loop], signal, { env }))
  await runProgram(['scancel', '--name=plain'], signal, { env })
  return ms / count
}

function namesOf(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `site${index}`)
}

async function assertDone<T extends Awaited<ReturnType<FleetRig['run']>> | { exitCode: number | null }>(
  ended: Promise<T>,
): Promise<T> {
  const end = await ended
  if (end.exitCode !== 0) throw new Error(`ended with ${end.exitCode}`)
  return end
}
