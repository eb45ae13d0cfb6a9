import { spawnSync } from 'node:child_process'
import { lstatSync, readdirSync, readFileSync, realpathSync, type Stats, statSync } from 'node:fs'
import { constants, getPriority } from 'node:os'
import { dirname, join } from 'node:path'
import { isErrno, TrainerError } from '../errors.ts'
import type { JobName, Quota } from '../quotas.ts'
import { foldersIn, stateDirOf } from '../settings/layout.ts'
import { isWithin } from '../system/bytes.ts'
import { readProc } from '../system/processes.ts'
import { safePath } from '../system/programs.ts'
import { explainFault } from './sandbox-fault.ts'
import { seccompFilter } from './seccomp.ts'

/** The folders for temporary data that the sandbox covers with `work/tmp`. */
export const temporaryFolder = /^\/((var\/)?tmp|dev\/shm)(?=\/)/

/** @returns the short name that `work/tmp` has in a sandbox: in a socket's path Linux takes 107 bytes */
export function shortTemporaryFolder(): string | undefined {
  return realFolders('/tmp', '/var/tmp')[0]
}

/** The folders that the sandbox covers: with `work/tmp`, or, where services have their sockets, with nothing. */
const coveredFolder = /^\/((var\/)?(tmp|run)|dev\/shm)(?=\/)/

/**
 * The user of root's trainings: it owns nothing on the machine but what it is given, and is nobody else.
 * systemd's list of users has this number as unused, and as one that 16 bits hold (https://systemd.io/UIDS-GIDS/).
 */
const TRAINING_USER = 65_530

/**
 * bwrap fails when a filesystem is unmounted while it makes its own mounts, as happens at boot
 * (https://github.com/containers/bubblewrap/issues/650): no sandbox is given up before so many attempts.
 */
export const SANDBOX_ATTEMPTS = 5

/** Wait longer before each of them. */
const ATTEMPT_PAUSE_MS = 50

/** The first descriptor on which what is wrapped around a training reads its {@link Contained.inputs}. */
const FIRST_INPUT = 7

/** @returns whom a sandboxed training should be given its output folder to, if anybody: it runs as the owner of that */
export function trainingUser(): number | undefined {
  return knownWay?.changesUser ? TRAINING_USER : undefined
}

/** One way of making a sandbox. */
type Way = {
  /** Starts bwrap, with its options for the user that the training runs as. */
  wrapper: string[]
  /** May root's training run as {@link TRAINING_USER}? */
  changesUser: boolean
}

/** The way that worked at the last look, with which network, and when that was. */
let knownWay:
  | (Way & { network: Quota['network']; foundMs: number; strongerFault: string | undefined })
  | undefined

/** Jobs follow each other: what has just worked is not tried again. */
const WAY_HOLDS_MS = 60_000

/**
 * Should this job's training run in a bubblewrap sandbox? Found out by making one: a distribution may forbid it.
 *
 * @param onFault told why a job that is to have the sandbox where that works goes without, or why root's training is root in
 * it
 * @throws {TrainerError} `config` if the job requires the sandbox, or one without a network, and it does not work here.
 */
export function useSandbox(
  job: JobName,
  sandbox: Quota['sandbox'],
  network: Quota['network'] = 'host',
  onFault?: (fault: string) => void,
): boolean {
  const needed = network === 'none' ? 'network is "none"' : sandbox === 'required' && 'sandbox is "required"'
  const refuse = (reason: string, remedy: string) =>
    new TrainerError('config', `jobs.${job}.${needed}, but ${reason}, or set it to ${remedy}`)
  if (sandbox === 'off') {
    if (network === 'host') return false
    throw refuse('its sandbox is "off"; set that to "auto"', '"host"')
  }
  const fault = findWay(network)
  if (fault === undefined) {
    const { changesUser, strongerFault } = knownWay!
    if (!changesUser && strongerFault && process.getuid?.() === 0)
      onFault?.(
        `root's trainings are root in the sandbox, with the right to use others' files: ${strongerFault}`,
      )
    return true
  }
  if (!needed) {
    onFault?.(
      `trainings run without the sandbox, so nothing bounds what they write outside their folders: ${fault}`,
    )
    return false
  }
  throw refuse(`the sandbox does not work: ${fault}`, network === 'none' ? '"host"' : '"auto"')
}

/** Find the strongest way that works here; @returns why none does, if none does */
function findWay(network: Quota['network']): string | undefined {
  if (knownWay?.network === network && performance.now() - knownWay.foundMs < WAY_HOLDS_MS) return undefined
  let fault: string | undefined
  for (const way of ways()) {
    const result = probe(way, network)
    if (result === undefined) {
      knownWay = { ...way, network, foundMs: performance.now(), strongerFault: fault }
      return undefined
    }
    fault = result
  }
  knownWay = undefined
  return fault
}

/** @returns why a sandbox cannot be made this way, if it cannot */
function probe(way: Way, network: Quota['network'], attempt = 1): string | undefined {
  const filter = seccompFilter({ allowsBursts: false })
  const identity = way.changesUser ? identityArgv({ uid: TRAINING_USER, gid: TRAINING_USER }) : []
  const argv = [
    ...bwrapArgv(way, network, way.changesUser),
    ...(filter ? ['--seccomp', '0'] : []),
    ...['--', ...identity, 'true'],
  ]
  const { status, signal, error, stderr } = spawnSync(argv[0]!, argv.slice(1), {
    env: { PATH: safePath },
    ...(filter && { input: filter }),
  })
  if (status === 0) return undefined
  const said = String(stderr).trim()
  if (isErrno(error, 'ENOENT', 'EACCES') || /failed to execute bwrap/.test(said)) {
    return 'bwrap is not installed; install the Debian package bubblewrap'
  }
  if (attempt < SANDBOX_ATTEMPTS) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, attempt * ATTEMPT_PAUSE_MS)
    return probe(way, network, attempt + 1)
  }
  return explainFault(said || `bwrap ended with ${signal ?? `exit code ${status}`}`)
}

/** The capabilities that root needs to start and look into a training of another user; see capabilities(7). */
// CHOWN, both DAC_*, FOWNER, KILL, SETGID, SETUID, SETPCAP, SYS_PTRACE
const OTHERS_CAPABILITIES = [0, 1, 2, 3, 5, 6, 7, 8, 19]

/** The ways of making a sandbox, strongest first. */
function ways(): Way[] {
  // Later mounts of the machine would else come into the sandbox, to be written there.
  const own = ['--mount', '--propagation', 'private', '--']
  if (process.getuid?.() === 0) {
    const wrapper = ['unshare', ...own, 'bwrap']
    const held = BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(readProc('self/status') ?? '')?.[1] ?? 0}`)
    const canChange = OTHERS_CAPABILITIES.every(capability => held & (1n << BigInt(capability)))
    const asRoot = { wrapper, changesUser: false }
    return canChange ? [{ wrapper, changesUser: true }, asRoot] : [asRoot]
  }
  const unshare = ['unshare', '--user', '--map-current-user', ...own]
  // The seccomp filter forbids user namespaces inside too, but is not there for every processor.
  const options = ['--unshare-user', '--disable-userns'] // bubblewrap 0.8
  return [[...unshare, 'bwrap', ...options], ['bwrap', ...options], [...unshare, 'bwrap'], ['bwrap']].map(
    wrapper => ({ wrapper, changesUser: false }),
  )
}

/** The bounds of a training on the machine; all paths are absolute and real. */
export type Containment = {
  /** The job's folder; in a sandbox its `work/` is the one place that can be written. */
  jobDir: string
  /** Where its models are published; stays visible in a sandbox, read-only, wherever it is. */
  publishedDir: string
  /** The training's working directory; stays visible in a sandbox, read-only, wherever it is. */
  workingDir: string
  isSandboxed: boolean
  /** Is the job's folder a filesystem of its own, in which no way of growing is too fast? */
  isCapped: boolean
  network: Quota['network']
  /** No file that it writes grows larger. */
  maxFileBytes: number
  /** The PATH on which its command is looked up; its wrappers are looked up on ours. */
  path: string
}

/** A training's command in all that contains it. */
export type Contained = {
  argv: string[]
  /** Read by `argv`, on descriptors from {@link FIRST_INPUT} on, before the command begins. */
  inputs: Buffer[]
  isSandboxed: boolean
}

/**
 * Wrap a training's command in all that contains it. A line on descriptor 6 says that this is done, and the command
 * begins when one has come back.
 */
export function contain(command: string[], containment: Containment): Contained {
  const { isSandboxed, maxFileBytes, path } = containment
  const inputs: Buffer[] = []
  const innermost = innermostArgv(command, path)
  const argv = isSandboxed ? sandboxArgv(innermost, command, containment, inputs) : innermost
  return { argv: limitedArgv(argv, maxFileBytes), inputs, isSandboxed }
}

/** Its environment has nothing of what shells and bwrap add. */
function innermostArgv(command: string[], path: string): string[] {
  const begin = 'echo >&6; read -ru 6 && exec 6>&- "$@"'
  const bare = ['env', '--unset=_', '--unset=PWD', '--unset=SHLVL', `PATH=${path}`]
  // dash would drop the variables whose names are none to a shell.
  return ['bash', '-c', begin, 'bash', ...bare, ...command]
}

/**
 * A filesystem that can only be read, devices and a process tree of its own, which dies with us, and nothing of the run:
 * no descriptor of its lock, and nothing of its state's folder.
 */
function bwrapArgv({ wrapper }: Way, network: Quota['network'], changesUser: boolean): string[] {
  return [
    ...wrapper,
    ...capabilityOptions(changesUser),
    ...['--die-with-parent', '--unshare-pid', '--unshare-ipc', '--ro-bind', '/', '/'],
    ...(network === 'none' && !isOffline() ? ['--unshare-net'] : []),
    ...['--dev', '/dev', ...accelerators().flatMap(path => ['--dev-bind-try', path, path])],
    ...['--proc', '/proc', ...kernelSettings().flatMap(path => ['--ro-bind', path, path])],
    // The first process is bwrap's and has the training's user: by its `mem` it could be made to leave the sandbox.
    ...['--tmpfs', '/proc/1', '--remount-ro', '/proc/1'],
    // Sockets of services: docker, dbus, systemd's for its users, tmux.
    ...realFolders('/run', '/var/run').flatMap(folder => ['--tmpfs', folder]),
    ...nameServers(network).flatMap(path => ['--ro-bind-try', path, path]),
  ]
}

/**
 * Is our own network namespace one that holds nothing, as a service's may be: no address or route but the loopback's, no
 * abstract socket? Then a training may stay in it, for a service may be forbidden to make another.
 */
function isOffline(): boolean {
  const ipv6 = readProc('self/net/if_inet6') ?? '' // no file where the kernel has no IPv6
  const sockets = readProc('self/net/unix')
  if (sockets === undefined || /\s@/.test(sockets) || !/^(.* lo\n)*$/.test(ipv6)) return false
  const ipv4 = readProc('self/net/fib_trie')
  return ipv4 !== undefined && !/\|-- (?!127\.)/.test(ipv4)
}

/** Only root has any: its power to mount would undo a sandbox from inside. */
function capabilityOptions(changesUser: boolean): string[] {
  if (process.getuid?.() !== 0) return []
  const kept = changesUser
    ? ['CAP_SETUID', 'CAP_SETGID', 'CAP_SETPCAP', 'CAP_CHOWN', 'CAP_DAC_READ_SEARCH']
    : ['CAP_DAC_OVERRIDE'] // to use files that other users own
  return ['--cap-drop', 'ALL', ...kept.flatMap(capability => ['--cap-add', capability])]
}

/**
 * Become the owner of the output folder. Of root's rights the one to read everything stays: programs and data may be
 * where only root may look.
 */
function identityArgv({ uid, gid }: Pick<Stats, 'uid' | 'gid'>): string[] {
  const groups = [...new Set(accelerators().flatMap(groupsOf))].filter(it => it !== 0)
  // The training can open its output by name then, as /dev/stdout.
  const begin = `chown "$0" /proc/self/fd/1; exec "$@"`
  return [
    ...['sh', '-c', begin, `${uid}`, 'setpriv', `--reuid=${uid}`, `--regid=${gid}`],
    groups.length ? `--groups=${groups}` : '--clear-groups',
    ...['--inh-caps=-all,+dac_read_search', '--ambient-caps=-all,+dac_read_search'],
    '--securebits=+no_setuid_fixup', // for access(2) to know of it
  ]
}

/** By name: everything else in /dev, disks above all, is none of a training's business. */
const accelerator =
  /^(nvidia.*|dri|kfd|accel\d*|dxg|infiniband|habanalabs|hl\d+|hl_controlD\d+|neuron\d+|davinci.*|apex_\d+|mali\d+)$/

function accelerators(): string[] {
  const isUsable = (path: string) => {
    const stats = lstatSync(path, { throwIfNoEntry: false })
    return stats?.isCharacterDevice() || stats?.isDirectory()
  }
  return readdirSync('/dev')
    .filter(name => accelerator.test(name))
    .map(name => join('/dev', name))
    .filter(isUsable)
}

/** Give the groups of an accelerator, or of the devices in its folder: as a rule they may use it. */
function groupsOf(path: string): number[] {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (!stats?.isDirectory()) return stats ? [stats.gid] : []
  return readdirSync(path).flatMap(name => statSync(join(path, name), { throwIfNoEntry: false })?.gid ?? [])
}

/** The settings that container engines keep from a container's root too: some make it the machine's root. */
function kernelSettings(): string[] {
  const names = [
    'acpi',
    'asound',
    'bus',
    'driver',
    'fs',
    'irq',
    'kcore',
    'mtrr',
    'scsi',
    'sys',
    'sysrq-trigger',
  ]
  return names
    .map(name => join('/proc', name))
    .filter(path => lstatSync(path, { throwIfNoEntry: false }) !== undefined)
}

/** A link may be among the names of folders, and leads to where another is covered. */
function realFolders(...folders: string[]): string[] {
  return folders.filter(folder => lstatSync(folder, { throwIfNoEntry: false })?.isDirectory())
}

/** The file of name servers, where that is among what services keep in /run. */
function nameServers(network: Quota['network']): string[] {
  if (network === 'none') return []
  const path = realPath('/etc/resolv.conf')
  return path && coveredFolder.test(path) ? [path] : []
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path)
  } catch {
    return undefined
  }
}

/**
 * No process of it escapes, by setsid, double fork or a cleared environment, and `/tmp`, `/var/tmp` and `/dev/shm` are the
 * job's own `work/tmp`: temporary data counts.
 */
function sandboxArgv(
  innermost: string[],
  command: string[],
  { jobDir, publishedDir, workingDir, isCapped, network }: Containment,
  inputs: Buffer[],
): string[] {
  if (!knownWay) findWay(network)
  const way = knownWay ?? ways().at(-1)!
  const { workDir: work, tmpDir: tmp, homeDir: home } = foldersIn(jobDir)
  const owner = statSync(work)
  const changesUser = way.changesUser && owner.uid !== 0
  const covered = [...realFolders('/tmp', '/var/tmp'), '/dev/shm']
  // Only what lies under the covered folders has to be shown again, on top of them; --ro-bind-try because
  // an argument may merely look like a path.
  const readable = [
    workingDir,
    ...(publishedDir === jobDir ? [] : [publishedDir]),
    ...command.flatMap(pathIn).filter(path => !isWithin(jobDir, path)),
  ].map(path => realPath(path) ?? path)
  const uncovered = readable.filter(path => coveredFolder.test(path))
  const state = realFolders(...new Set([jobDir, publishedDir].map(dir => stateDirOf(dirname(dir)))))
  const input = (content: Buffer) => String(FIRST_INPUT + inputs.push(content) - 1)
  const filter = seccompFilter({ allowsBursts: isCapped })
  return [
    ...bwrapArgv(way, network, changesUser),
    ...covered.flatMap(folder => ['--bind', tmp, folder]),
    ...uncovered.flatMap(path => ['--ro-bind-try', path, path]),
    ...state.flatMap(folder => ['--tmpfs', folder, '--remount-ro', folder]),
    ...['--ro-bind', jobDir, jobDir, '--bind', work, work],
    ...(changesUser ? ['--ro-bind-data', input(usersWith(owner, home)), '/etc/passwd'] : []),
    // Last, because what is shown in them needs a place there.
    ...['/dev', ...realFolders('/run', '/var/run')].flatMap(folder => ['--remount-ro', folder]),
    ...(filter ? ['--seccomp', input(filter)] : []),
    ...['--chdir', workingDir, '--', ...(changesUser ? identityArgv(owner) : []), ...innermost],
  ]
}

/** The absolute path that an argument is, or gives to an option: `/data`, `--data=/data`. */
function pathIn(argument: string): string[] {
  const path = /^(?:-[^=]*=)?(\/.*)$/s.exec(argument)?.[1]
  return path === undefined ? [] : [path]
}

/** The machine's users and the training's, which Python's getpass and others want to find there. */
function usersWith({ uid, gid }: Pick<Stats, 'uid' | 'gid'>, home: string): Buffer {
  const users = readFileSync('/etc/passwd', 'utf8')
  if (new RegExp(`^[^:]*:[^:]*:${uid}:`, 'm').test(users)) return Buffer.from(users)
  // No field may have a colon.
  const place = home.includes(':') ? '/' : home
  return Buffer.from(`${users}training:x:${uid}:${gid}:a training:${place}:/usr/sbin/nologin\n`)
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
