import { TrainerError } from '../errors.ts'
import type { Job } from '../run.ts'
import { describeRest } from '../storage/rest.ts'
import { MIB } from '../text.ts'
import { diskFull, type Figures, fileRefused, inodesGone, limitReached } from './limit.ts'
import { explainMisplaced } from './misplaced-words.ts'
import type { Budget } from './preflight.ts'
import type { TrainingExit } from './process.ts'
import type { Progress } from './progress.ts'
import { describePruned, findPruned } from './pruned-paths.ts'
import { explainRefusal } from './refused-write.ts'

/** Room beside one largest file, for folders and small files. */
export const FILE_SLACK_BYTES = 256 * 1024

/** The kernel's own error for a file that may not grow, as Node.js and Python name it; only RLIMIT_FSIZE causes it. */
const fileLimitError = /\bEFBIG\b|\[Errno 27\]/

/**
 * Was it the quota, or others on the disk, that stopped this training? Only what was measured when it ended tells; its
 * words alone are no evidence, since they may be about anything. Undefined if space was not the matter.
 */
export async function explainSpace(
  budget: Budget,
  { end, fullest }: { end: Figures; fullest: Figures | undefined },
  { signal }: TrainingExit,
  { saysOutOfSpace, lastError = '' }: Progress,
): Promise<TrainerError | undefined> {
  const { limitBytes, limitInodes, reserveBytes, reserveInodes, isCapped } = budget
  // On a filesystem of its own the kernel has counted, also what it has deleted by now.
  const looks = isCapped && (saysOutOfSpace || signal === 'SIGBUS') && fullest ? [end, fullest] : [end]
  const figures = looks.reduce((a, b) => (b.freeBytes < a.freeBytes || b.freeInodes < a.freeInodes ? b : a))
  const { usedBytes, usedInodes, freeBytes, freeInodes } = figures
  const how = 'ran into its limit'
  const isAtLimit = usedBytes > Math.min(0.97 * limitBytes, limitBytes - 2 * FILE_SLACK_BYTES)
  // A write of which not all finds room may be refused whole.
  const isFull = isCapped && freeBytes < Math.max(0.03 * limitBytes, 2 * MIB)
  if (isAtLimit || signal === 'SIGXFSZ' || (isFull && (saysOutOfSpace || signal === 'SIGBUS')))
    return limitReached(budget, figures, how, await describeRest(budget.dir, budget.rules, { faults: [] }))
  if (fileLimitError.test(lastError)) return fileRefused(budget, figures)
  if (usedInodes > 0.97 * limitInodes) return inodesGone(budget, figures, how)
  if (!saysOutOfSpace) return undefined
  if (freeInodes <= reserveInodes) return inodesGone(budget, figures, how)
  return freeBytes <= reserveBytes ? diskFull(budget, figures) : undefined
}

/**
 * Why a training failed, in its own words, and what this run had to do with it: a write that was refused, what it pruned, or
 * where its command runs.
 */
export function explainFailure(
  job: Job,
  isSandboxed: boolean,
  { exitCode, signal }: TrainingExit,
  { lastError, lastLine, logPath, finalWords }: Progress,
): TrainerError {
  const how = signal ? `was ended by ${signal}` : `ended with exit code ${exitCode}`
  const killed =
    signal === 'SIGKILL'
      ? 'not by this run: as a rule by the kernel, out of memory (journalctl -k)'
      : undefined
  const words = lastError ? `its error was "${lastError}"` : `its last line was "${lastLine}"`
  const said = lastLine ? `${words}, all its output is in ${logPath}` : 'it printed nothing'
  const [refused] = isSandboxed ? finalWords.flatMap(it => explainRefusal(it, job) ?? []) : []
  const [pruned] = finalWords.flatMap(it => findPruned(it, job.pruned) ?? [])
  const missing = pruned && `that names ${describePruned(pruned)}`
  const misplaced = explainMisplaced(job.quota.train, job.run.quotas.dir)
  const reasons = [`${job.name}'s training ${how}`, killed, said, refused, missing, misplaced].filter(
    it => it !== undefined,
  )
  return new TrainerError('training-failed', reasons.join('; '))
}
