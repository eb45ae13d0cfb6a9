import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants, getPriority } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { JobName, Quota } from '../quotas.ts'
import { readProc } from '../system/processes.ts'
import { safePath } from '../system/programs.ts'

/** The folders for temporary data that the sandbox covers with `work/tmp`. */
export const temporaryFolder = /^\/((var\/)?tmp|dev\/shm)(?=\/)/

/** Root's power to mount would undo a sandbox from inside; that to use files of the service's user stays. */
const rootCapabilities = ['--cap-drop', 'ALL', '--cap-add', 'CAP_DAC_OVERRIDE']

/**
 * A filesystem that can only be read, devices (GPUs too) as they are, and a process tree that dies with us. The lock
 * is held by its first process, out of the training's reach.
 */
const base = [
  ...(process.getuid?.() === 0 ? rootCapabilities : []),
  '--die-with-parent',
  '--unshare-pid',
  '--ro-bind',
  '/',
  '/',
  '--dev-bind',
  '/dev',
  '/dev',
  '--proc',
  '/proc',
]

/**
 * bwrap fails when a filesystem is unmounted while it makes its own mounts, as happens at boot
 * (https://github.com/containers/bubblewrap/issues/650): no sandbox is given up before so many attempts.
 */
export const SANDBOX_ATTEMPTS = 5

/**
 * Should this job's training run in a bubblewrap sandbox? Found out by making one: a distribution may forbid it.
 *
 * @throws {TrainerError} `config` if the job requires the sandbox and it does not work here.
 */
export function useSandbox(job: JobName, sandbox: Quota['sandbox']): boolean {
  if (sandbox === 'off') return false
  const { status, signal, error, stderr } = probeSandbox()
  if (status === 0) return true
  if (sandbox === 'auto') return false
  const reason = error
    ? 'bwrap is not installed; install the Debian package bubblewrap'
    : `${String(stderr).trim() || `bwrap ended with ${signal ?? `exit code ${status}`}`}; let this user make namespaces`
  throw new TrainerError(
    'config',
    `jobs.${job}.sandbox is "required", but the sandbox does not work: ${reason}, or set it to "auto"`,
  )
}

function probeSandbox(attempt = 1): SpawnSyncReturns<Buffer> {
  const probe = spawnSync('bwrap', [...base, 'true'], { env: { PATH: safePath } })
  return probe.status === 0 || probe.error || attempt === SANDBOX_ATTEMPTS ? probe : probeSandbox(attempt + 1)
}

/** What a training may do on the machine; all paths are absolute and real. */
export type Containment = {
  /** The job's folder; in a sandbox its `work/` is the one place that can be written. */
  jobDir: string
  /** The training's working directory; stays visible in a sandbox, read-only, wherever it is. */
  workingDir: string
  isSandboxed: boolean
  /** No file that it writes grows larger. */
  maxFileBytes: number
  /** What its command is looked up on; what the command is wrapped in is looked up on ours. */
  path: string
}

/**
 * Wrap a training's command in all that contains it. A line on descriptor 6 says that this is done and the command
 * begins.
 */
export function containedArgv(command: string[], containment: Containment): string[] {
  const { isSandboxed, maxFileBytes, path } = containment
  const innermost = innermostArgv(command, path)
  return limitedArgv(isSandboxed ? sandboxArgv(innermost, containment) : innermost, maxFileBytes)
}

/** Its environment has nothing of what shells and bwrap add. */
function innermostArgv(command: string[], path: string): string[] {
  const begin = 'echo >&6; exec 6>&- "$@"'
  const bare = ['env', '--unset=_', '--unset=PWD', '--unset=SHLVL', `PATH=${path}`]
  // dash would drop the variables whose names are none to a shell.
  return ['bash', '-c', begin, 'bash', ...bare, ...command]
}

/**
 * No process of it escapes, by setsid, double fork or a cleared environment, and `/tmp`, `/var/tmp` and `/dev/shm` are the
 * job's own `work/tmp`: temporary data counts. Descriptor 3, the lock, stays with the sandbox's first process.
 */
function sandboxArgv(command: string[], { jobDir, workingDir }: Containment): string[] {
  const work = join(jobDir, 'work')
  const tmp = join(work, 'tmp')
  const covered = ['/tmp', '/var/tmp', ...(existsSync('/dev/shm') ? ['/dev/shm'] : [])]
  // Only what lies under the covered folders has to be shown again, on top of them; --ro-bind-try because
  // an argument may merely look like a path.
  const readable = [
    workingDir,
    ...command.filter(argument => isAbsolute(argument) && !jobDir.startsWith(argument)),
  ]
  const uncovered = readable.filter(path => temporaryFolder.test(path))
  return [
    'bwrap',
    ...base,
    ...['--sync-fd', '3'],
    ...covered.flatMap(folder => ['--bind', tmp, folder]),
    ...uncovered.flatMap(path => ['--ro-bind-try', path, path]),
    ...['--ro-bind', jobDir, jobDir, '--bind', work, work],
    ...['--chdir', workingDir, '--', ...command],
  ]
}

/**
 * Limits that every process of it inherits: no file larger than `maxFileBytes`, no core dumps, the lowest processor and
 * I/O priority.
 */
function limitedArgv(command: string[], maxFileBytes: number): string[] {
  // Counted from ours, which the guard may have raised; where it is the lowest already, changing it may be forbidden.
  const lower = constants.priority.PRIORITY_LOW - getPriority()
  return [
    ...['prlimit', `--fsize=${Math.min(maxFileBytes, ownMaxFileBytes())}`, '--core=0', '--'],
    ...['ionice', '-t', '-c', '3'],
    ...(lower ? ['nice', '-n', String(lower)] : []),
    ...command,
  ]
}

/** The largest file that we may write ourselves: nobody may ask for more. */
function ownMaxFileBytes(): number {
  const hard = /^Max file size +\S+ +(\d+)/m.exec(readProc('self/limits') ?? '')?.[1]
  return hard === undefined ? Infinity : Number(hard)
}
