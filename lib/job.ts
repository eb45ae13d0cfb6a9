import { join } from 'node:path'
import type { EventBody } from './events.ts'
import type { JobName, Quota } from './quotas.ts'
import type { Run } from './run.ts'
import type { Pruned } from './storage.ts'

/** One job of a run: what its three phases share. */
export type Job = {
  name: JobName
  quota: Quota
  /** Everything in here is charged to the quota. */
  dir: string
  /** The training's output folder. */
  workDir: string
  run: Run
  emit: (event: EventBody) => void
  onPrune: (pruned: Pruned) => void
}

/** What the steps of one job of a run share. */
export function openJob(name: JobName, run: Run): Job {
  const quota = { ...run.quotas.jobs[name] }
  if (run.command.maxDiskMb !== undefined) quota.maxDiskMb = run.command.maxDiskMb
  const dir = join(run.modelsDir, name)
  const emit = (event: EventBody) => run.journal.emit(event)
  const dryRun = run.command.dryRun ? { dryRun: true } : {}
  return {
    name,
    quota,
    dir,
    workDir: join(dir, 'work'),
    run,
    emit,
    onPrune: pruned => emit({ event: 'storage.prune', job: name, ...pruned, ...dryRun }),
  }
}
