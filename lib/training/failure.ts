import { TrainerError } from '../errors.ts'
import type { Job } from '../run.ts'
import { quoteWord } from '../text.ts'
import { explainMisplaced } from './misplaced-words.ts'
import type { TrainingExit } from './process.ts'
import type { Progress } from './progress.ts'
import { describePruned, findPruned, isComplaint } from './pruned-paths.ts'
import { explainRefusal } from './refused-write.ts'

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
      ? 'this run did not send it: as a rule the kernel did, out of memory (journalctl -k)'
      : undefined
  const words = lastError ? `its error was "${lastError}"` : `its last line was "${lastLine}"`
  const silent = `it printed nothing; its command is: ${job.quota.train.map(quoteWord).join(' ')}`
  const said = lastLine ? `${words}, all its output is in ${logPath}` : silent
  const [refused] = isSandboxed ? finalWords.flatMap(it => explainRefusal(it, job) ?? []) : []
  const [pruned] = finalWords.flatMap(it => findPruned(it, job.pruned) ?? [])
  const sparesCheckpoint = finalWords.some(it => isComplaint(it) && findPruned(it, job.pruned))
  const missing = pruned && `its output names ${describePruned(pruned)}`
  const misplaced = explainMisplaced(job.quota.train, job.run.quotas.dir)
  const reasons = [`${job.name}'s training ${how}`, killed, said, refused, missing, misplaced].filter(
    it => it !== undefined,
  )
  return new TrainerError('training-failed', reasons.join('; '), { sparesCheckpoint })
}
