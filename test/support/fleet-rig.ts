import { type ChildProcess, spawn } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainerEvent } from '../../lib/events.ts'
import type { FleetEvent } from '../../lib/fleet/fleet-events.ts'
import { parseLine } from '../../lib/run/past-events.ts'
import { programOf, root } from './places.ts'
import { type FakeTrainer, publishes, type Rig, trainerRig } from './rig.ts'
import { sandbox, until } from './sandbox.ts'
import type { Cluster } from './slurm.ts'

type Ended = { exitCode: number | null; signal: NodeJS.Signals | null; output: string; events: FleetEvent[] }
export type FollowingFleet = { child: ChildProcess; events: () => FleetEvent[]; ended: Promise<Ended> }

export type FleetRig = AsyncDisposable & {
  path: (...names: string[]) => string
  /** A site by itself, as if there were no fleet. */
  rig: (site: string) => Rig
  /** Where a site's models are. */
  modelsDir: (site: string) => string
  /** Return the journal of a site's runs. */
  journal: (site: string) => TrainerEvent[]
  /** Start scripts/fleet.ts with its fleet file. */
  start: (...args: string[]) => FollowingFleet
  run: (...args: string[]) => Promise<Ended>
}

/** The training of a site's core; dpi and agent have valid models already, so that it is over soon, unless all three train. */
type SiteSettings = { trainer?: FakeTrainer; core?: Record<string, unknown>; trainsAll?: boolean }

/**
 * A fleet of small fake trainings on a cluster.
 *
 * @param slurm the settings of that name in the fleet file
 * @param project the program that runs on the nodes
 * @example await using fleet = await fleetRig(cluster, { paris: {} }); await fleet.run()
 */
export async function fleetRig(
  cluster: Cluster,
  sites: Record<string, SiteSettings>,
  slurm: Record<string, unknown> = {},
  project: string = root,
): Promise<FleetRig> {
  const box = await sandbox()
  const rigs = new Map<string, Rig>()
  for (const [name, { trainer = publishes, core = {}, trainsAll = false }] of Object.entries(sites)) {
    const others = trainsAll ? { dpi: { trainer }, agent: { trainer } } : {}
    const rig = await trainerRig({ core: { trainer, ...core }, ...others })
    for (const job of trainsAll ? [] : ['dpi', 'agent']) {
      mkdirSync(join(rig.modelsDir, job), { recursive: true })
      copyFileSync(rig.path('fixture.onnx'), join(rig.modelsDir, job, `${job}.onnx`))
    }
    rigs.set(name, rig)
  }
  const places = Object.fromEntries(
    Array.from(rigs, ([name, rig]) => [name, { modelsDir: rig.modelsDir, quotas: rig.path('quotas.json') }]),
  )
  writeFileSync(box.path('fleet.json'), JSON.stringify({ slurm, project, sites: places }))
  const children: ChildProcess[] = []

  const start: FleetRig['start'] = (...args) => {
    const argv = [...programOf('scripts/fleet.ts'), box.path('fleet.json'), '--json', '--poll', '1s', ...args]
    const child = spawn(process.execPath, argv, {
      cwd: root,
      env: { ...process.env, ...cluster.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    children.push(child)
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', chunk => (stdout += chunk))
    child.stderr.on('data', chunk => (stderr += chunk))
    const events = () => stdout.split('\n').flatMap(line => (line.startsWith('{') ? [JSON.parse(line)] : []))
    const ended = new Promise<Ended>(resolve => {
      child.on('close', (exitCode, signal) =>
        resolve({ exitCode, signal, output: stdout + stderr, events: events() }),
      )
    })
    return { child, events, ended }
  }
  return {
    path: box.path,
    rig: site => rigs.get(site)!,
    modelsDir: site => rigs.get(site)!.modelsDir,
    journal: site => {
      const file = join(rigs.get(site)!.modelsDir, '.trainer', 'events.jsonl')
      const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : []
      return lines.flatMap(line => parseLine(line) ?? [])
    },
    start,
    run: (...args) => start(...args).ended,
    async [Symbol.asyncDispose]() {
      for (const child of children) child.kill('SIGKILL')
      for (const rig of rigs.values()) await rig[Symbol.asyncDispose]()
      await box[Symbol.asyncDispose]()
    },
  }
}

type EventOf<Name> = Extract<FleetEvent, { event: Name }>

/** Wait for an event of a fleet that goes on. */
export function untilFleet<const Name extends FleetEvent['event']>(
  { events }: FollowingFleet,
  name: Name,
  site?: string,
): Promise<EventOf<Name>> {
  const isWanted = (event: FleetEvent): event is EventOf<Name> =>
    event.event === name && (site === undefined || ('site' in event && event.site === site))
  return until(`${name} of ${site ?? 'the fleet'}`, () => events().find(isWanted), 50_000)
}

/** How each site failed, as it was told; those that went well have 0. */
export function failuresOf(events: FleetEvent[]): Record<string, { exitCode: number; message: string }> {
  return Object.fromEntries(
    events.flatMap(event => {
      if (event.event === 'site.done') return [[event.site, { exitCode: 0, message: event.message }]]
      if (event.event === 'site.fail')
        return [[event.site, { exitCode: event.exitCode, message: event.message }]]
      return []
    }),
  )
}
