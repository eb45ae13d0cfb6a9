import type { EventBody, Guarantee } from '../events.ts'
import { count, formatBytes, formatMetrics, formatSeconds, formatTold } from '../text.ts'

const guarantees: Record<Guarantee, string> = {
  'kernel+sandbox': 'kernel+sandbox: its own filesystem caps it, no process escapes',
  kernel: 'kernel: its own filesystem caps it; no sandbox, a process may outlive the training',
  'watch+sandbox':
    'watch+sandbox: watched and pruned, no process escapes; a fast writer can pass the quota for milliseconds',
  watch:
    'watch: watched and pruned, weaker: no sandbox, so writes outside its folder and escaped processes are not seen',
}

/** Describe an event in one line for a person. A guarantee in `explained` is only named. */
export function describeEvent(event: EventBody, explained: ReadonlySet<Guarantee> = new Set()): string {
  switch (event.event) {
    case 'run.start':
      return `ransomeye-trainer ${event.version}: ${event.jobs.join(', ')} in ${event.modelsDir}${event.dryRun ? ' (dry run: nothing is changed)' : ''}`
    case 'run.done':
      return `${event.message}${event.exitCode ? ` (exit code ${event.exitCode})` : ''}, after ${formatSeconds(event.seconds)}`
    case 'run.wait':
      return event.job
        ? `waiting ${formatSeconds(event.seconds)} at most: ${event.reason}`
        : `next pass in ${formatSeconds(event.seconds)}: ${event.reason}`
    case 'day1.check':
      return event.missing
        ? `no valid model: ${event.reason}`
        : `valid: ${event.models.join(', ')} (${event.reason})`
    case 'job.start':
      return `${event.dryRun ? 'would start' : 'start'}: ${event.dir}, limit ${formatBytes(event.limitBytes)}; ${explained.has(event.guarantee) ? event.guarantee : guarantees[event.guarantee]}`
    case 'job.skip':
      return `skipped: ${event.reason}`
    case 'job.done':
      return `done in ${formatSeconds(event.seconds)}, ${formatBytes(event.usedBytes)} used`
    case 'job.fail':
      return `failed: ${event.message}`
    case 'storage.usage':
      return `${event.phase}: ${formatBytes(event.usedBytes)} of ${formatBytes(event.limitBytes)} used, ${formatBytes(event.freeBytes)} free on the disk`
    case 'storage.prune':
      return `${event.dryRun ? 'would prune' : 'pruned'} ${event.path} (${formatBytes(event.bytes)}, rule ${event.rule}); ${formatBytes(event.usedBytes)} used`
    case 'train.start':
      return `training, pid ${event.pid}: ${event.argv.join(' ')}`
    case 'train.output':
      return `> ${event.line}`
    case 'train.progress': {
      const { share, secondsLeft } = event
      return share === null
        ? 'its lines no longer tell progress'
        : `progress, by its own word: ${formatTold({ share, secondsLeft })}`
    }
    case 'train.exit':
      return `training ended with ${event.signal ?? `exit code ${event.exitCode}`} after ${formatSeconds(event.seconds)}`
    case 'train.freeze':
      return `paused to count: up to ${formatBytes(event.usedBytes)} in use by the filesystem's account`
    case 'train.resume':
      return `resumed at ${formatBytes(event.usedBytes)} after ${Math.round(event.pausedMs)} ms${event.countedOnly ? '; nothing was pruned' : ''}`
    case 'quota.exceeded':
      return event.message
    case 'model.publish': {
      const data = event.data.map(it => `; its data ${it.name}, ${it.bytes} bytes, sha256 ${it.sha256}`)
      if (event.moreData) data.push(`; and ${count(event.moreData, 'more file')} of data`)
      const metrics = Object.keys(event.metrics).length ? `: ${formatMetrics(event.metrics)}` : ''
      return `published ${event.path} (${event.bytes} bytes, sha256 ${event.sha256}${data.join('')})${metrics}`
    }
    case 'model.refuse':
      return `not accepted: ${event.reason}; what is published stays`
    case 'model.rollback':
      return `${event.dryRun ? 'would make' : 'made'} generation ${event.generation} current, from ${event.from}`
    case 'warning':
      return event.message
    default:
      return event satisfies never
  }
}
