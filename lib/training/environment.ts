import { join } from 'node:path'
import { limitedTo, placeholders } from '../quotas.ts'
import type { Job } from '../run.ts'
import { safePath } from '../system/programs.ts'
import { MIB } from '../text.ts'

/** The variables that a training gets from the environment that started us; all others have to stand in quotas.json. */
const inherited = /^(HOME|USER|LOGNAME|TZ|LANG|LC_[A-Z]+)$/

/** What a training is told of its job. */
type Told = Pick<Job, 'name' | 'quota' | 'workDir' | 'tmpDir' | 'publishedDir' | 'run'>

/**
 * The environment of a training: built anew, so that NODE_OPTIONS, LD_PRELOAD or a PATH from the boot
 * environment do not reach it, with every well-known home of temporary data inside the job's quota.
 *
 * @param toldBytes what it may use in its output folder
 */
export function trainingEnvironment(job: Told, toldBytes: number): Record<string, string> {
  const { name, quota, workDir, tmpDir, publishedDir, run } = job
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
    RANSOMEYE_JOB: name,
    RANSOMEYE_MAX_DISK_MB: wholeMb(toldBytes),
    // On scratch the job's own settings have what its published models leave of it.
    RANSOMEYE_QUOTA_MB: String(limitedTo(run.quotas.jobs[name], run.command.maxDiskMb).maxDiskMb),
    RANSOMEYE_OUTPUT_DIR: workDir,
    RANSOMEYE_MODEL_DIR: publishedDir,
  }
}

/**
 * The command of a training as an argument vector, placeholders filled in; without any placeholder
 * `--max-disk-mb N --output-dir DIR` is appended.
 *
 * @param toldBytes what it may use in its output folder
 */
export function trainingArgv({ quota, workDir, publishedDir }: Told, toldBytes: number): string[] {
  const values: Record<string, string> = {
    maxDiskMb: wholeMb(toldBytes),
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

/** What the job's folder itself and a manifest take: it must not make the first training's figure odd. */
const FORGIVEN_BYTES = MIB / 16

/** Many trainers take 0 for no limit. */
function wholeMb(bytes: number): string {
  return String(Math.max(1, Math.floor((bytes + FORGIVEN_BYTES) / MIB)))
}
