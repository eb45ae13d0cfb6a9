import type { Level, TrainerEvent } from '../events.ts'
import { describeEvent } from '../run/event-text.ts'
import { count, escapeText, formatSeconds } from '../text.ts'

/** The states of a site, in the order in which it goes through them; the last two are its ends. */
export const siteStates = ['waiting', 'running', 'done', 'failed'] as const
export type SiteState = (typeof siteStates)[number]

/** Events of the fleet itself; its sites' own journals have the others. */
export type FleetEventBody =
  | { event: 'fleet.start'; file: string; sites: string[]; attached?: true; followed?: true }
  /** How many sites wait for each of Slurm's reasons. */
  | { event: 'fleet.wait'; reasons: Record<string, number> }
  /** `next` is the command that comes back, or says more. */
  | { event: 'fleet.done'; exitCode: number; seconds: number; message: string; next?: string }
  | { event: 'site.submit'; site: string; slurmJob: number; submittedAt: string }
  | { event: 'site.start'; site: string; slurmJob: number; host: string }
  | { event: 'site.done'; site: string; slurmJob: number; message: string; seconds: number }
  | { event: 'site.fail'; site: string; slurmJob?: number; exitCode: number; message: string }
  | { event: 'slurm.away'; message: string }
  | { event: 'slurm.back'; seconds: number }
  | { event: 'warning'; message: string }

/** An event of a site's own run, with the site that it belongs to. */
type SiteEvent = TrainerEvent & { site: string }

/** The events of a fleet: its own, and those of its sites. */
export type FleetEvent = ({ time: string; level: Level } & FleetEventBody) | SiteEvent

/** Stamp an event with its level and its time, which is now unless it was earlier. */
export function stampFleetEvent(body: FleetEventBody, time = new Date().toISOString()): FleetEvent {
  return { time, level: levelOf(body), ...body }
}

function levelOf(body: FleetEventBody): Level {
  switch (body.event) {
    case 'site.fail':
      return 'error'
    case 'fleet.done':
      return body.exitCode === 0 ? 'info' : 'error'
    case 'slurm.away':
    case 'warning':
      return 'warning'
    default:
      return 'info'
  }
}

/** By which ways of leaving a fleet that is followed its jobs end, and by which they go on. */
export const leaving = 'Ctrl-C ends all jobs; close the terminal to leave them running'

/** The events of a site's run that a person wants to see beside a hundred other sites. */
const told: TrainerEvent['event'][] = ['job.done', 'job.fail', 'quota.exceeded', 'warning']

/** Is the event for a person, too? The site's journal has all of them. */
export function isTold(event: FleetEvent): boolean {
  return !('run' in event) || told.includes(event.event)
}

/** Format an event as one timestamped line for a person. */
export function formatFleetLine(event: FleetEvent): string {
  const level = event.level === 'info' ? '' : `${event.level.toUpperCase()} `
  const site = 'site' in event ? `${event.site}: ` : ''
  return escapeText(`${event.time} ${level}${site}${describeFleetEvent(event)}`)
}

/** The words of an event, without its time and its site. */
export function describeFleetEvent(event: FleetEvent): string {
  if ('run' in event) return `${'job' in event && event.job ? `${event.job}: ` : ''}${describeEvent(event)}`
  switch (event.event) {
    case 'fleet.start':
      return `${count(event.sites.length, 'site')} of ${event.file}${event.attached ? ', followed again' : ''}${event.followed ? `. ${leaving}` : ''}`
    case 'fleet.wait':
      return describeWaiting(event.reasons)
    case 'fleet.done':
      return `${event.message}${event.exitCode ? ` (exit code ${event.exitCode})` : ''}, after ${formatSeconds(event.seconds)}`
    case 'site.submit':
      return `Slurm job ${event.slurmJob}, submitted at ${event.submittedAt}`
    case 'site.start':
      return `started on ${event.host}, Slurm job ${event.slurmJob}`
    case 'site.done':
      return `${event.message}, after ${formatSeconds(event.seconds)}`
    case 'site.fail':
      return `failed with exit code ${event.exitCode}: ${event.message}`
    case 'slurm.away':
      return `Slurm's controller does not answer (${event.message}); jobs go on, and are followed by their journals`
    case 'slurm.back':
      return `Slurm's controller answers again, after ${formatSeconds(event.seconds)}`
    case 'warning':
      return event.message
    default:
      return event satisfies never
  }
}

/** Why sites wait, and how many for each reason: `12 wait: Priority; 1 waits: Resources`. */
export function describeWaiting(reasons: Record<string, number>): string {
  const parts = Object.entries(reasons)
  return parts.map(([reason, sites]) => `${sites} ${sites === 1 ? 'waits' : 'wait'}: ${reason}`).join('; ')
}
