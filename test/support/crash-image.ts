import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { programOf } from './places.ts'
import { type Sandbox, until } from './sandbox.ts'
import { must } from './volume-rig.ts'

/** A kind of filesystem in an image: its size, and what makes, mounts and unmounts it. */
export type Disk = {
  kind: string
  mb: number
  mkfs: string[]
  mount: string[]
}

/** Make an empty image in a box, and the folder `mount` for it. */
export function makeImage(box: Sandbox, image: string, { mb, mkfs }: Disk): void {
  must('truncate', '-s', `${mb}M`, box.path(image))
  must(mkfs[0]!, ...mkfs.slice(1), box.path(image))
  mkdirSync(box.path('mount'), { recursive: true })
}

/** Copy an image as it is on disk now. */
export function copyImage(box: Sandbox, image: string, copy: string): void {
  must('cp', '--sparse=always', box.path(image), box.path(copy))
}

/** Use a job's folder on a mounted image. */
export async function withMounted<T>(
  box: Sandbox,
  image: string,
  { mount }: Disk,
  use: (jobDir: string) => Promise<T>,
): Promise<T> {
  const [program, ...options] = mount
  const argv = [...options, box.path(image), box.path('mount')]
  await until('it can be mounted', () => spawnSync(program!, argv).status === 0)
  try {
    mkdirSync(box.path('mount/core'), { recursive: true })
    return await use(box.path('mount/core'))
  } finally {
    await until('it can be unmounted', () => spawnSync('umount', [box.path('mount')]).status === 0)
    // Those of `mount -o loop` go by themselves.
    for (const device of devicesOf(box.path(image))) spawnSync('losetup', ['--detach', device])
  }
}

function devicesOf(image: string): string[] {
  const list = ['--associated', image, '--output', 'NAME', '--noheadings']
  return must('losetup', ...list)
    .split('\n')
    .filter(Boolean)
}

/**
 * Run a command of test/support/publisher.ts until one of its system calls, and cut the power then: `copy` is called while
 * it stands still, and it is killed.
 *
 * @returns false if it has no such call
 */
export async function stopAt(
  box: Sandbox,
  jobDir: string,
  [call, when]: [call: string, when: number],
  [command, ...names]: string[],
  copy: () => void,
): Promise<boolean> {
  const log = box.path('log')
  copyFileSync('/dev/null', log)
  const fault = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=STOP:when=${when}`]
  const program = [process.execPath, ...programOf('test/support/publisher.ts'), command!, jobDir, ...names]
  const child = spawn('strace', ['-f', '-qq', '-o', log, ...fault, ...program], {
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', chunk => (said += chunk))
  const ended = once(child, 'exit')
  const stopped = () => /^(\d+) +--- stopped by SIGSTOP/m.exec(readFileSync(log, 'utf8'))?.[1]
  await until('it stops or ends', () => stopped() !== undefined || child.exitCode !== null, 30_000)
  const isCut = stopped() !== undefined
  if (isCut) copy()
  else assert.is(child.exitCode, 0, said)
  if (isCut) for (const pid of tracedBy(child.pid!)) process.kill(pid, 'SIGKILL')
  await ended
  return isCut
}

function tracedBy(pid: number): number[] {
  const children = readFileSync(join('/proc', String(pid), 'task', String(pid), 'children'), 'utf8')
  return children.split(' ').filter(Boolean).map(Number)
}

/** Has the kernel a filesystem, and this machine the program that makes it? Only root can mount it. */
export function canMount({ kind, mkfs }: Disk): boolean {
  if (process.getuid?.() !== 0 || spawnSync(mkfs[0]!, ['-V']).error) return false
  spawnSync('modprobe', [kind])
  return readFileSync('/proc/filesystems', 'utf8').split(/\s/).includes(kind)
}
