import { priorityPrefix } from '../settings/script.ts'
import { escapeText, wrap } from '../text.ts'
import { type FleetEvent, formatFleetLine, isTold } from './fleet-events.ts'
import type { FollowedSite } from './followed-site.ts'

/** Shows a fleet: to a program, to a log, or on a screen. */
export type FleetOutput = {
  /** Show an event. */
  take: (event: FleetEvent) => void
  /** Show how the sites stand. */
  show: (sites: FollowedSite[]) => void
  /** The following has ended; only the end of the fleet is still to be taken. */
  close: (sites: FollowedSite[]) => void
}

/** One JSON object a line: every event, those of the sites' own runs too. */
export class FleetJsonLines implements FleetOutput {
  take(event: FleetEvent): void {
    process.stdout.write(`${JSON.stringify(event)}\n`)
  }

  // Every figure that a program needs is in an event.
  show(): void {}
  close(): void {}
}

/** One timestamped line an event, for a person or a log; what a site's own journal has in detail is left out. */
export class FleetTextLines implements FleetOutput {
  take(event: FleetEvent): void {
    if (!isTold(event)) return
    const line = formatFleetLine(event)
    const { columns } = process.stdout
    const prefix = priorityPrefix(1, event.level)
    process.stdout.write(`${prefix}${columns ? wrap(line, columns) : line}\n`)
    // A command to copy has a line of its own.
    if ('next' in event && event.next) process.stdout.write(`${prefix}  ${escapeText(event.next)}\n`)
  }

  // A line is made of an event.
  show(): void {}
  close(): void {}
}
