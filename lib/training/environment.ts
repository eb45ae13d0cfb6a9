import { join } from 'node:path'
import { type JobName, placeholders, type Quota } from '../quotas.ts'
import type { Job } from '../run.ts'
import { safePath } from '../system/programs.ts'
import { MIB } from '../text.ts'

/** The variables that a training gets from the environment that started us; all others have to stand in quotas.json. */
const inherited = /^(HOME|USER|LOGNAME|TZ|LANG|LC_[A-Z]+)$/

/**
 * The environment of a training: built anew, so that NODE_OPTIONS, LD_PRELOAD or a PATH from the boot
 * environment do not reach it, with every well-known home of temporary data inside the job's quota.
 */
export function trainingEnvironment(
  job: JobName,
  quota: Quota,
  { workDir, tmpDir, publishedDir }: Pick<Job, 'workDir' | 'tmpDir' | 'publishedDir'>,
  limitBytes: number,
): Record<string, string> {
  const kept = Object.entries(process.env).filter(([name]) => inherited.test(name))
  const cache = join(tmpDir, 'cache')
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    PATH: safePath,
    TMPDIR: tmpDir,
    TMP: tmpDir,
    TEMP: tmpDir,
    XDG_CACHE_HOME: cache,
    HF_HOME: join(cache, 'huggingface'),
    TORCH_HOME: join(cache, 'torch'),
    MPLCONFIGDIR: join(cache, 'matplotlib'),
    ...quota.env,
    RANSOMEYE_JOB: job,
    RANSOMEYE_MAX_DISK_MB: wholeMb(limitBytes),
    RANSOMEYE_OUTPUT_DIR: workDir,
    RANSOMEYE_MODEL_DIR: publishedDir,
  }
}

/**
 * The command of a training as an argument vector, placeholders filled in; without any placeholder
 * `--max-disk-mb N --output-dir DIR` is appended.
 */
export function trainingArgv(
  quota: Quota,
  { workDir, publishedDir }: Pick<Job, 'workDir' | 'publishedDir'>,
  limitBytes: number,
): string[] {
  const values: Record<string, string> = {
    maxDiskMb: wholeMb(limitBytes),
    outputDir: workDir,
    modelDir: publishedDir,
  }
  const placeholder = new RegExp(`\\{(${placeholders.join('|')})\\}`, 'g')
  const filled = quota.train.map(argument =>
    argument.replace(placeholder, (_, name: string) => values[name]!),
  )
  const usesPlaceholders = quota.train.some(argument => argument.search(placeholder) >= 0)
  return usesPlaceholders
    ? filled
    : [...filled, '--max-disk-mb', values.maxDiskMb!, '--output-dir', values.outputDir!]
}

function wholeMb(bytes: number): string {
  return String(Math.floor(bytes / MIB))
}
