import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './places.ts'
import { sandbox, until } from './sandbox.ts'

/** Where the machine has this project: a folder below /tmp, where a clone may be, is hidden from services. */
export const installedRoot = '/opt/ransomeye-trainer'

export type Machine = AsyncDisposable & {
  /** A path of the machine, as seen from outside. */
  path: (...names: string[]) => string
  /** Run a command in it, as root. */
  run: (...argv: string[]) => SpawnSyncReturns<string>
}

/**
 * A control group of its own, and our own files, copied on write. Of the services nothing but the journal is kept:
 * others would set up the kernel that we share.
 */
const PREPARE = `set -e
mount --make-rprivate /
cd "$1"
mkdir cgroup disk
mount -t cgroup2 cgroup2 cgroup
mkdir cgroup/ransomeye-$$
echo $$ > cgroup/ransomeye-$$/cgroup.procs
mount -t tmpfs tmpfs disk
mkdir disk/upper disk/work disk/root
mount -t overlay overlay -o lowerdir=/,upperdir=disk/upper,workdir=disk/work disk/root
cd disk/root
rm -rf var/lib/ransomeye etc/systemd/system/* etc/fstab
find usr/lib/systemd/system -path '*.wants/*' ! -name 'systemd-journald*' -delete
echo 0123456789abcdef0123456789abcdef > etc/machine-id
mkdir -p ".$3"
mount --bind "$2" ".$3"
exec unshare --pid --mount --uts --ipc --net --cgroup --fork --kill-child bash -c "$4"`

/** The environment that systemd finds in a container, see https://systemd.io/CONTAINER_INTERFACE */
const BOOT = `set -e
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir -p mnt/before
pivot_root . mnt/before
umount -l mnt/before
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=null --unit=basic.target`

const CLEAN = `mount -t cgroup2 cgroup2 "$1"/cgroup
find "$1"/cgroup/ransomeye-$2 -depth -type d -exec rmdir {} +`

/** Can systemd be started here, in namespaces? */
export function canBoot(): boolean {
  const probe = `set -e
mount --make-rprivate /
mount -t cgroup2 none /mnt
mkdir /mnt/ransomeye-$$
rmdir /mnt/ransomeye-$$
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
test -x /lib/systemd/systemd`
  return spawnSync('unshare', ['--mount', '--pid', '--cgroup', '--fork', 'bash', '-c', probe]).status === 0
}

/**
 * A machine with a real systemd and this project to install: our own files, but no change of it lasts, and no
 * process of it survives.
 *
 * @example await using machine = await bootMachine(); machine.run('systemctl', 'start', 'example.service')
 */
export async function bootMachine(): Promise<Machine> {
  const box = await sandbox()
  const args = ['--mount', 'bash', '-c', PREPARE, 'prepare', box.dir, root, installedRoot, BOOT]
  const child = spawn('unshare', args, { stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = once(child, 'exit')
  async function end() {
    child.kill('SIGKILL')
    await ended
    const clean = ['--mount', 'bash', '-c', CLEAN, 'clean', box.dir, String(child.pid)]
    await until('its control group is removed', () => spawnSync('unshare', clean).status === 0)
    await box[Symbol.asyncDispose]()
  }
  try {
    const init = await until('systemd is started', () => {
      const first = read(`${child.pid}/task/${child.pid}/children`)?.trim()
      return read(`${first}/comm`) === 'systemd\n' ? first : undefined
    })
    const run: Machine['run'] = (...argv) =>
      spawnSync('nsenter', ['--target', init, '--all', ...argv], {
        encoding: 'utf8',
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
        timeout: 60_000,
      })
    await until('it has booted', () => run('systemctl', 'is-active', 'basic.target').status === 0)
    return { path: (...names) => join(`/proc/${init}/root`, ...names), run, [Symbol.asyncDispose]: end }
  } catch (error) {
    await end()
    throw error
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(`/proc/${path}`, 'utf8')
  } catch {
    return undefined
  }
}
