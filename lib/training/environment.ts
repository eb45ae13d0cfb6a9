import { join } from 'node:path'
import { limitedTo, type placeholders } from '../quotas.ts'
import type { Job } from '../run.ts'
import { safePath } from '../system/programs.ts'
import { MIB } from '../text.ts'

/** The variables that a training gets from the environment that started us; all others have to stand in quotas.json. */
const inherited = /^(USER|LOGNAME|TZ|LANG|LC_[A-Z]+)$/

/** The facts of its job that a training is told. */
type Told = Pick<
  Job,
  'name' | 'quota' | 'workDir' | 'tmpDir' | 'cacheDir' | 'homeDir' | 'publishedDir' | 'run'
>

/**
 * The environment of a training: built anew, so that NODE_OPTIONS, LD_PRELOAD or a PATH from the boot
 * environment do not reach it, with every well-known home of temporary data and caches inside the job's quota.
 *
 * @param toldBytes what it may use in its output folder
 * @param temporary the name by which it has its folder for temporary files
 */
export function trainingEnvironment(job: Told, toldBytes: number, temporary: string): Record<string, string> {
  const { name, quota, workDir, cacheDir, homeDir, publishedDir, run } = job
  const kept = Object.entries(process.env).filter(([name]) => inherited.test(name))
  const cacheOf = (program: string) => join(cacheDir, program)
  const { fill } = placeholdersOf(job, toldBytes)
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    PATH: safePath,
    TMPDIR: temporary,
    TMP: temporary,
    TEMP: temporary,
    HOME: homeDir,
    // Otherwise Python looks below HOME for what `pip install --user` has installed.
    ...(process.env.HOME && { PYTHONUSERBASE: join(process.env.HOME, '.local') }),
    XDG_CACHE_HOME: cacheDir,
    HF_HOME: cacheOf('huggingface'),
    TORCH_HOME: cacheOf('torch'),
    TORCHINDUCTOR_CACHE_DIR: cacheOf('torchinductor'),
    TRITON_CACHE_DIR: cacheOf('triton'),
    NUMBA_CACHE_DIR: cacheOf('numba'),
    MPLCONFIGDIR: cacheOf('matplotlib'),
    PYTHONUNBUFFERED: '1',
    ...Object.fromEntries(Object.entries(quota.env).map(([key, value]) => [key, fill(value)])),
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
export function trainingArgv(job: Told, toldBytes: number): string[] {
  const { train } = job.quota
  const { fill, isUsedIn } = placeholdersOf(job, toldBytes)
  const filled = train.map(fill)
  if (train.some(isUsedIn)) return filled
  return [...filled, '--max-disk-mb', wholeMb(toldBytes), '--output-dir', job.workDir]
}

function placeholdersOf({ workDir, publishedDir }: Told, toldBytes: number) {
  const values: Record<(typeof placeholders)[number], string> = {
    maxDiskMb: wholeMb(toldBytes),
    outputDir: workDir,
    modelDir: publishedDir,
  }
  return fillerOf(values)
}

/** Make what fills values into texts, each in the place of `{its name}`. */
export function fillerOf(values: Record<string, string>) {
  const pattern = new RegExp(`\\{(${Object.keys(values).join('|')})\\}`, 'g')
  return {
    fill: (text: string) => text.replace(pattern, (_, name: string) => values[name]!),
    isUsedIn: (text: string) => text.search(pattern) >= 0,
  }
}

/** Bytes of the job's folder itself and of a manifest: they must not make the first training's figure odd. */
const FORGIVEN_BYTES = MIB / 16

/** Many trainers take 0 for no limit. */
function wholeMb(bytes: number): string {
  return String(Math.max(1, Math.floor((bytes + FORGIVEN_BYTES) / MIB)))
}
