import type { Painted } from '../run/live-list.ts'
import { escapeText, formatBar, formatBytes, formatClock } from '../text.ts'
import { describeFleetEvent, type FleetEvent, type SiteState, siteStates } from './fleet-events.ts'
import type { FollowedSite } from './followed-site.ts'
import { type FleetOutput, FleetTextLines } from './output.ts'

/** Rows of the screen that are not for sites: the title, what Slurm says, the cursor. */
const OTHER_ROWS = 4
const BAR_WIDTH = 12

/**
 * The words of a live list of one fleet, as much as fits the screen: sites by state, the trainings that go on with their
 * bars, the failures with their reasons. Before it begins and after its end events are lines.
 */
export class FleetLiveList implements FleetOutput {
  readonly #lines = new FleetTextLines()
  readonly #startedMs = performance.now()
  #task: Painted | undefined
  #sites: FollowedSite[] = []
  #note = ''

  /** Show what happens as one task until `body` ends; throws what it throws. */
  async during(body: () => Promise<void>): Promise<void> {
    const { Listr } = await import('listr2')
    const task = {
      title: 'fleet',
      task: async (_: unknown, task: Painted) => {
        this.#task = task
        try {
          await body()
        } finally {
          this.#paint()
          this.#task = undefined
        }
      },
      rendererOptions: { persistentOutput: true, outputBar: Number.POSITIVE_INFINITY },
    }
    await new Listr([task], {
      registerSignalListeners: false,
      rendererOptions: { collapseErrors: false, lazy: true },
    }).run()
  }

  take(event: FleetEvent): void {
    if (!this.#task) this.#lines.take(event)
    else if (!('site' in event)) this.#note = describeFleetEvent(event)
  }

  show(sites: FollowedSite[]): void {
    this.#sites = sites
    this.#paint()
  }

  close(): void {}

  #paint(): void {
    if (!this.#task) return
    const { columns = 80, rows = 24 } = process.stdout
    const seconds = (performance.now() - this.#startedMs) / 1000
    this.#task.title = `${describeCounts(this.#sites)}  ${formatClock(seconds)}`
    this.#task.output = drawSites(this.#sites, this.#note, columns - 6, rows - OTHER_ROWS).join('\n')
  }
}

/** Sites by state: `12 sites: 3 running, 5 waiting, 4 done`. */
export function describeCounts(sites: FollowedSite[]): string {
  const counts = countStates(sites)
  const shown = siteStates.filter(state => counts[state]).map(state => `${counts[state]} ${state}`)
  return `${sites.length} ${sites.length === 1 ? 'site' : 'sites'}: ${shown.join(', ')}`
}

/** How many sites are in each state. */
export function countStates(sites: FollowedSite[]): Record<SiteState, number> {
  const counts = { waiting: 0, running: 0, done: 0, failed: 0 }
  for (const { state } of sites) counts[state]++
  return counts
}

/**
 * The lines below the title: failures, the last ones first, at most half of them all; then what trains; then why the
 * others wait.
 *
 * @param width of a line, in columns; longer ones are cut
 * @param height at most so many lines
 */
export function drawSites(sites: FollowedSite[], note: string, width: number, height: number): string[] {
  const failed = sites.filter(({ state }) => state === 'failed').reverse()
  const running = sites.filter(({ state }) => state === 'running')
  const head = note ? [note] : []
  const room = Math.max(2, height - head.length)
  const forFailed = Math.min(failed.length, Math.max(room >> 1, room - running.length - 1))
  const forRunning = Math.max(1, room - forFailed - 1)
  return [
    ...head,
    ...listSome(running, forRunning, describeTraining),
    ...describeWaiting(sites),
    ...listSome(failed, forFailed, ({ site, outcome }) => `✖ ${site.name}: ${outcome?.message ?? ''}`),
  ]
    .slice(0, Math.max(height, 1))
    .map(line => clip(escapeText(line), width))
}

function listSome(sites: FollowedSite[], most: number, describe: (site: FollowedSite) => string): string[] {
  if (sites.length <= most) return sites.map(describe)
  const shown = sites.slice(0, Math.max(0, most - 1)).map(describe)
  return most > 0 ? [...shown, `… and ${sites.length - shown.length} more`] : []
}

function describeTraining({ site, host, training }: FollowedSite): string {
  const where = host ? ` on ${host}` : ''
  if (!training) return `${site.name}${where}`
  const { job, usedBytes, limitBytes } = training
  const usage = `${formatBar(usedBytes, limitBytes, BAR_WIDTH)} ${formatBytes(usedBytes)} of ${formatBytes(limitBytes)}`
  return `${site.name}${where}: ${job}  ${usage}`
}

/** The reasons of those that wait, with how many wait for each. */
function describeWaiting(sites: FollowedSite[]): string[] {
  const reasons = new Map<string, number>()
  for (const { state, reason } of sites) {
    if (state === 'waiting' && reason && reason !== 'None')
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
  }
  const parts = Array.from(reasons, ([reason, count]) => `${count} for ${reason}`)
  return parts.length ? [`waiting: ${parts.join(', ')}`] : []
}

function clip(line: string, width: number): string {
  return line.length > width ? `${line.slice(0, Math.max(0, width - 1))}…` : line
}
