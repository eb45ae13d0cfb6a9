import { type ChildProcess, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { MIB } from '../../lib/text.ts'
import { canBoot } from './machine.ts'
import { sandbox, until } from './sandbox.ts'
import { skipUnless } from './skips.ts'
import { test } from './test.ts'
import { must } from './volume-rig.ts'

/** The limits of a machine besides its disk: less memory than ours, and our loop devices. */
type Hardware = { memoryMb?: number; loopDevices?: boolean }

/** A machine with a disk of its own, on which systemd is process 1 while it is on. */
export type BootedMachine = AsyncDisposable & {
  /** A path on its disk, as seen from outside; there also while it is off. */
  path: (...names: string[]) => string
  /** Run a command on it, as root: while it is on as a process beside systemd's, while it is off in a chroot. */
  run: (...argv: string[]) => SpawnSyncReturns<string>
  /** The same; gives the output of a command that must not fail. */
  must: (...argv: string[]) => string
  /** Show a folder of ours on it, before it is turned on. */
  insert: (folder: string, at: string) => void
  /** Turn it on, and wait until systemd has done all that it does at a boot, but for the jobs that are named. */
  powerOn: (hardware?: Hardware) => Promise<void>
  /** Kill every process of it at one moment. */
  cutPower: () => Promise<void>
  /** Let systemd end it. */
  shutDown: () => Promise<void>
  /** Give it one more disk of ext4, before it is turned on. */
  mountDisk: (sizeMb: number, at: string) => void
}

/** The options that give a machine our loop devices. */
const loops = readdirSync('/dev')
  .filter(name => name.startsWith('loop'))
  .map(name => `--bind=/dev/${name}`)

const packages = ['systemd-container', 'debootstrap', 'debhelper', 'bash-completion']

/** Can Debian be installed and booted here? */
export const canBootDebian = canBoot() && spawnSync('dpkg-query', ['--show', ...packages]).status === 0

/** A test that boots machines. */
export const withBoot = skipUnless(
  test,
  canBootDebian,
  `needs root, an overlay filesystem, ${packages.join(', ')}`,
)

const MEMORY_GROUPS = '/sys/fs/cgroup/memory'

/** Can a machine be given less memory? In the control groups of its own systemd it finds none that count memory. */
export const hasMemoryGroups = existsSync(`${MEMORY_GROUPS}/memory.limit_in_bytes`)

/** Its disk: an image that does not change, and above it what the machine writes. */
const INSERT = `set -e
mount --make-rprivate /
cd "$1"
mkdir upper work disk cgroup
mount -t overlay overlay -o lowerdir="$2",upperdir=upper,workdir=work disk
mount -t cgroup2 cgroup2 cgroup
mkdir "cgroup/$3"
echo inserted
exec sleep infinity`

/**
 * It has a network of its own, because its services would set up ours; a control group of its own, as systemd wants them;
 * and nothing of ours is told of it.
 */
const BOOT = `set -e
cd "$1"
echo $$ > cgroup/"$2"/cgroup.procs
[ -z "$3" ] || echo $$ > "$3"/cgroup.procs
exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_LOCK=0 systemd-nspawn --quiet --boot --private-network \\
  --register=no --keep-unit --settings=no --link-journal=no --resolv-conf=off --timezone=off --console=read-only \\
  --machine=appliance --directory=disk "\${@:4}"`

const REMOVE = `find "$1/cgroup/$2" -depth -type d -exec rmdir {} +`

/**
 * A machine that is off.
 *
 * @param image the root folder of its system
 * @example await using machine = await newMachine(await debianImage(13)); await machine.powerOn()
 */
export async function newMachine(image: string): Promise<BootedMachine> {
  const box = await sandbox()
  const controlGroup = `ransomeye-${process.pid}`
  const holder = spawn('unshare', ['--mount', 'bash', '-c', INSERT, 'insert', box.dir, image, controlGroup], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(holder.stdout, 'data')
  const inHolder = (...argv: string[]) => ['--target', String(holder.pid), '--mount', '--', ...argv]
  const ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', TERM: 'dumb', DEBIAN_FRONTEND: 'noninteractive' }
  let power: { child: ChildProcess; init: string; ended: Promise<unknown> } | undefined
  let console = ''

  const path: BootedMachine['path'] = (...names) =>
    join(`/proc/${holder.pid}/root`, box.dir, 'disk', ...names)
  const run: BootedMachine['run'] = (...argv) => {
    const where = power ? ['--target', power.init, '--all'] : inHolder('chroot', box.path('disk'))
    return spawnSync('nsenter', [...where, ...argv], { encoding: 'utf8', env: ENV, timeout: 300_000 })
  }
  const memoryGroup = join(MEMORY_GROUPS, controlGroup)
  const powerOn: BootedMachine['powerOn'] = async ({ memoryMb, loopDevices } = {}) => {
    console = ''
    if (memoryMb) {
      mkdirSync(memoryGroup, { recursive: true })
      writeFileSync(join(memoryGroup, 'memory.limit_in_bytes'), String(memoryMb * MIB))
    }
    const child = spawn(
      'nsenter',
      inHolder(
        'bash',
        '-c',
        BOOT,
        'boot',
        box.dir,
        controlGroup,
        memoryMb ? memoryGroup : '',
        ...(loopDevices ? loops : []),
      ),
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    )
    for (const stream of [child.stdout, child.stderr]) stream.on('data', text => (console += text))
    const ended = once(child, 'exit')
    try {
      const init = await until('systemd is started', () => {
        if (child.exitCode !== null) throw new Error('it ended')
        const children = read(`${child.pid}/task/${child.pid}/children`)?.trim().split(' ') ?? []
        return children.find(pid => read(`${pid}/comm`) === 'systemd\n')
      })
      power = { child, init, ended }
      await until(
        'it has booted',
        () => run('systemctl', 'is-active', 'multi-user.target').status === 0,
        60_000,
      )
    } catch (cause) {
      child.kill('SIGKILL')
      throw new Error(`the machine does not boot: ${console.slice(-2000)}`, { cause })
    }
  }
  async function cutPower() {
    if (!power) return
    process.kill(Number(power.init), 'SIGKILL') // with the first process of a pid namespace all others end
    await power.ended
    power = undefined
  }
  return {
    path,
    run,
    must(...argv) {
      const { status, stdout, stderr } = run(...argv)
      assert.is(status, 0, `${argv.join(' ')}: ${stdout}${stderr}`)
      return stdout
    },
    insert(folder, at) {
      mkdirSync(path(at), { recursive: true })
      must('nsenter', ...inHolder('mount', '--bind', folder, box.path(`disk${at}`)))
    },
    powerOn,
    cutPower,
    async shutDown() {
      run('systemctl', 'poweroff', '--no-block')
      await power?.ended
      power = undefined
    },
    mountDisk(sizeMb, at) {
      const disk = box.path('disk.img')
      writeFileSync(disk, '')
      truncateSync(disk, sizeMb * MIB)
      must('mkfs.ext4', '-q', '-m', '0', disk)
      mkdirSync(path(at), { recursive: true })
      must('nsenter', ...inHolder('mount', '-o', 'loop', disk, box.path(`disk${at}`)))
    },
    async [Symbol.asyncDispose]() {
      await cutPower()
      await until(
        'its control group is removed',
        () =>
          spawnSync('nsenter', inHolder('bash', '-c', REMOVE, 'remove', box.dir, controlGroup)).status === 0,
      )
      if (existsSync(memoryGroup)) rmdirSync(memoryGroup)
      holder.kill('SIGKILL')
      await once(holder, 'exit')
      await box[Symbol.asyncDispose]()
    },
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(`/proc/${path}`, 'utf8')
  } catch {
    return undefined
  }
}
