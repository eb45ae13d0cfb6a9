import { parseEvent, type TrainerEvent } from '../../lib/events.ts'

type Name = TrainerEvent['event']

const usage = { phase: 'training', usedBytes: 0, limitBytes: 0, freeBytes: 0 }

/** The fields of an event besides its name, its time and its run; a test names only those that it is about. */
const leftOut: Record<Name, object> = {
  'run.start': { modelsDir: '/m', jobs: [], version: '0.0.0' },
  'run.done': { exitCode: 0, seconds: 1, message: '' },
  'run.wait': { reason: '', seconds: 1 },
  'day1.check': { job: 'core', models: [], missing: true, reason: '' },
  'job.start': { job: 'core', dir: '/m/core', limitBytes: 0, guarantee: 'watch' },
  'job.skip': { job: 'core', reason: '' },
  'job.done': { job: 'core', seconds: 1, usedBytes: 0 },
  'job.fail': { job: 'core', code: 'failed', message: '' },
  'storage.usage': { job: 'core', ...usage },
  'storage.prune': { job: 'core', path: '', bytes: 0, mtime: '', rule: '', usedBytes: 0 },
  'train.start': { job: 'core', pid: 1, argv: [] },
  'train.output': { job: 'core', line: '' },
  'train.progress': { job: 'core', share: 0.5 },
  'train.exit': { job: 'core', exitCode: 0, signal: null, seconds: 1 },
  'train.freeze': { job: 'core', usedBytes: 0 },
  'train.resume': { job: 'core', usedBytes: 0, pausedMs: 0 },
  'quota.exceeded': { job: 'core', usedBytes: 0, limitBytes: 0, message: '' },
  'model.publish': { job: 'core', path: '', bytes: 0, sha256: '', metrics: {} },
  'model.refuse': { job: 'core', reason: '', metrics: {} },
  'model.rollback': { job: 'core', generation: 1, from: 2 },
  warning: { message: '' },
}

/** An event with some of its fields. */
export type Sketch = { event: Name; [field: string]: unknown }

/** An event as a journal has it, a line. */
export function journalLine(event: Sketch): string {
  const stamp = { time: '2026-03-01T10:00:00.000Z', level: 'info', run: 'r1' }
  const whole = { ...stamp, ...leftOut[event.event], ...event }
  if (!parseEvent(whole)) throw new Error(`is no event: ${JSON.stringify(whole)}`)
  return `${JSON.stringify(whole)}\n`
}
