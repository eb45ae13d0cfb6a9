import type { ErrorCode } from './errors.ts'
import type { JobName } from './quotas.ts'

export type Level = 'debug' | 'info' | 'warning' | 'error' | 'critical'

/** When in a job's life a measurement was taken. */
type Phase = 'preflight' | 'training' | 'postflight'

/** Everything that can happen in a run; sizes are bytes, `seconds` and `pausedMs` are monotonic durations. */
export type EventBody =
  | { event: 'run.start'; modelsDir: string; jobs: JobName[]; version: string; dryRun?: boolean }
  | { event: 'run.done'; exitCode: number; seconds: number; message: string }
  | { event: 'run.wait'; job?: JobName; reason: string; seconds: number }
  | { event: 'day1.check'; job: JobName; models: string[]; missing: boolean; reason: string }
  | {
      event: 'job.start'
      job: JobName
      dir: string
      limitBytes: number
      guarantee: Guarantee
      dryRun?: boolean
    }
  | { event: 'job.skip'; job: JobName; reason: string }
  | { event: 'job.done'; job: JobName; seconds: number; usedBytes: number }
  | { event: 'job.fail'; job: JobName; code: ErrorCode | 'internal'; message: string }
  | {
      event: 'storage.usage'
      job: JobName
      phase: Phase
      usedBytes: number
      limitBytes: number
      freeBytes: number
    }
  | {
      event: 'storage.prune'
      job: JobName
      path: string
      bytes: number
      mtime: string
      rule: string
      usedBytes: number
      dryRun?: boolean
    }
  | { event: 'train.start'; job: JobName; pid: number; argv: string[] }
  | { event: 'train.output'; job: JobName; line: string }
  | {
      event: 'train.exit'
      job: JobName
      exitCode: number | null
      signal: NodeJS.Signals | null
      seconds: number
    }
  | { event: 'train.freeze'; job: JobName; usedBytes: number }
  | { event: 'train.resume'; job: JobName; usedBytes: number; pausedMs: number }
  | { event: 'quota.exceeded'; job: JobName; usedBytes: number; limitBytes: number; message: string }
  | {
      event: 'model.publish'
      job: JobName
      path: string
      bytes: number
      sha256: string
      metrics: Record<string, number>
    }
  | { event: 'warning'; job?: JobName; message: string }

/** What bounds a training's bytes: a filesystem of its own, or watching; and whether it is in a sandbox. */
export type Guarantee = 'kernel+sandbox' | 'kernel' | 'watch+sandbox' | 'watch'

/** An event as it is written: one JSON object a line. */
export type TrainerEvent = { time: string; level: Level; run: string } & EventBody
