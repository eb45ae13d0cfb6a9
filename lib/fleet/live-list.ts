import { clip, count, escapeText, formatBar, formatBytes, formatClock } from '../text.ts'
import {
  describeFleetEvent,
  describeWaiting,
  type FleetEvent,
  type SiteState,
  siteStates,
} from './fleet-events.ts'
import { countReasons, type FollowedSite } from './followed-site.ts'
import { type FleetOutput, FleetTextLines } from './output.ts'

/** Rows of the screen that are not for sites: the counts, how to leave, and the one that the cursor is in. */
const OTHER_ROWS = 3
const BAR_WIDTH = 12

/**
 * A live list of one fleet, as much as fits the screen: sites by state, the trainings that go on with their bars, the
 * failures with their reasons. Before it is first shown and after its end events are lines.
 *
 * It is painted by itself: listr2 would paint a screen full of lines ten times a second, which costs more than all the
 * following of a thousand sites.
 */
export class FleetLiveList implements FleetOutput {
  readonly #lines = new FleetTextLines()
  readonly #startedMs = performance.now()
  readonly #foot: string
  #painted = 0
  #note = ''

  /** @param foot the last line; none if it is empty */
  constructor(foot: string) {
    this.#foot = foot
  }

  take(event: FleetEvent): void {
    if (event.event === 'fleet.wait') return // the list has a line for it
    if (!this.#painted) this.#lines.take(event)
    else if (!('site' in event)) this.#note = describeFleetEvent(event)
  }

  show(sites: FollowedSite[]): void {
    const { columns = 80, rows = 24 } = process.stdout
    const seconds = (performance.now() - this.#startedMs) / 1000
    const width = columns - 1
    const head = clip(`${describeCounts(sites)}  ${formatClock(seconds)}`, width)
    const foot = this.#foot ? [clip(this.#foot, width)] : []
    const lines = [head, ...drawSites(sites, this.#note, width, rows - OTHER_ROWS), ...foot]
    process.stdout.write(`${this.#toTop()}${lines.join('\n')}\n`)
    this.#painted = lines.length
  }

  /** The last picture goes: what it said of failures is printed whole. */
  close(sites: FollowedSite[]): void {
    process.stdout.write(this.#toTop())
    this.#painted = 0
    for (const { site, outcome } of sites) {
      if (outcome?.exitCode) process.stdout.write(`✖ ${escapeText(`${site.name}: ${outcome.message}`)}\n`)
    }
  }

  /** Back to the first line that was painted, and nothing below it. */
  #toTop(): string {
    return this.#painted ? `\x1b[${this.#painted}A\x1b[J` : ''
  }
}

/** Sites by state: `12 sites: 3 running, 5 waiting, 4 done`. */
export function describeCounts(sites: FollowedSite[]): string {
  const counts = countStates(sites)
  const shown = siteStates.filter(state => counts[state]).map(state => `${counts[state]} ${state}`)
  return `${count(sites.length, 'site')}: ${shown.join(', ')}`
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
  const reasons = countReasons(sites)
  const head = note ? [note] : []
  const room = Math.max(2, height - head.length)
  const forFailed = Math.min(failed.length, Math.max(room >> 1, room - running.length - 1))
  const forRunning = Math.max(1, room - forFailed - 1)
  return [
    ...head,
    ...listSome(running, forRunning, describeTraining),
    ...(Object.keys(reasons).length ? [describeWaiting(reasons)] : []),
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
