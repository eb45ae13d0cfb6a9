/** Prune jobs down to their quotas: node --import tsx scripts/prune.ts [core] [dpi] [agent] [--dry-run] */
import { existsSync } from 'node:fs'
import { TrainerError } from '../lib/errors.ts'
import { recover } from '../lib/models/recovery.ts'
import { publishedFiles, supersededFiles } from '../lib/models.ts'
import { lookingOptions } from '../lib/run/command-line.ts'
import { type Job, perform, type Run } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { lookAt } from '../lib/storage/measure.ts'
import { enforceLimit } from '../lib/storage.ts'
import { formatBytes } from '../lib/text.ts'
import { announce } from '../lib/training/job.ts'

/**
 * Bring each job to its quota as the pre-flight of a training does, under the lock of a run and in its journal. A job
 * that cannot be brought there does not keep the others from it.
 *
 * @returns what was pruned, for a person
 * @throws {TrainerError} of the job with the highest exit code, when all have had their turn
 */
async function prune(run: Run): Promise<string> {
  const pruned: Sum = { count: 0, bytes: 0 }
  const failures: TrainerError[] = []
  for (const job of run.jobs) {
    run.signal.throwIfAborted()
    try {
      await pruneJob(job, pruned)
    } catch (error) {
      if (run.signal.aborted || !(error instanceof TrainerError)) throw error
      announce(job, error)
      failures.push(error)
    }
  }
  const outcome = sumUp(pruned, run.command.dryRun)
  const [worst] = failures.sort((a, b) => b.exitCode - a.exitCode)
  if (worst) throw new TrainerError(worst.code, `${outcome}; ${worst.message}`, { cause: worst })
  return outcome
}

async function pruneJob(
  { name, quota, jobDir, run, emit, onPrune, onFault }: Job,
  pruned: Sum,
): Promise<void> {
  if (!existsSync(jobDir)) return
  const { dryRun } = run.command
  const startedMs = performance.now()
  const { usedBytes, freeBytes } = await lookAt(jobDir)
  const { quotaBytes: limitBytes, maxDiskMb, globs } = quota
  emit({ event: 'storage.usage', job: name, phase: 'preflight', usedBytes, limitBytes, freeBytes })

  if (!dryRun) for (const message of await recover(jobDir, quota.keepGenerations)) onFault(message)
  const after = await enforceLimit(jobDir, maxDiskMb, {
    ...globs,
    superseded: supersededFiles(jobDir),
    keep: await publishedFiles(jobDir, quota.models),
    dryRun,
    onFault,
    onPrune: deletion => {
      pruned.count++
      pruned.bytes += deletion.bytes
      onPrune(deletion)
    },
    signal: run.signal,
  })
  const seconds = (performance.now() - startedMs) / 1000
  if (!dryRun) emit({ event: 'job.done', job: name, seconds, usedBytes: after.usedBytes })
}

/** The sum of what was pruned: there may be hundreds of thousands. */
type Sum = { count: number; bytes: number }

function sumUp({ count, bytes }: Sum, isDryRun: boolean): string {
  const freed = formatBytes(bytes)
  if (isDryRun) return `dry run, nothing was changed; would prune ${count} (${freed})`
  return count ? `pruned ${count} (${freed})` : 'nothing to prune'
}

if (isEntry(import.meta)) {
  const summary = 'Delete the oldest checkpoints and temporary files until quotas are kept.'
  process.exitCode = await perform(
    { name: 'scripts/prune.ts', summary, takes: lookingOptions, needsModelsDir: true },
    prune,
  )
}
