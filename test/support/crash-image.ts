import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { listProcesses, readProc } from '../../lib/system/processes.ts'
import { type Sandbox, until } from './sandbox.ts'
import { type Traced, trace } from './traced-publisher.ts'
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
function copyImage(box: Sandbox, image: string, copy: string): void {
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
    const devices = devicesOf(box.path(image))
    // Another mount namespace may hold it mounted, and nothing would be written then.
    must('sync', '--file-system', box.path('mount'))
    await until('it can be unmounted', () => spawnSync('umount', [box.path('mount')]).status === 0)
    await until('a filesystem that is a program has written all', () => !devices.some(isServed))
    // The loop devices of `mount -o loop` go by themselves.
    for (const device of devicesOf(box.path(image))) spawnSync('losetup', ['--detach', device])
  }
}

/** Is there a program that was given the device? FUSE unmounts before it ends. */
function isServed(device: string): boolean {
  return listProcesses().some(({ pid }) => readProc(`${pid}/cmdline`)?.split('\0').includes(device))
}

function devicesOf(image: string): string[] {
  const list = ['--associated', image, '--output', 'NAME', '--noheadings']
  return must('losetup', ...list)
    .split('\n')
    .filter(Boolean)
}

/** A system call after which the power is cut: its name, and at which time; 0 is each time. */
export type Point = [call: string, when: number]

/**
 * Run a command of test/support/publisher.ts on an image, and cut the power after a system call: the image is copied as it is
 * on disk while the command stands still there.
 *
 * @returns the names of the copies, in order
 */
export async function cutAt(
  box: Sandbox,
  template: string,
  disk: Disk,
  [call, when]: Point,
  [command, ...names]: string[],
): Promise<string[]> {
  const tracing = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=STOP:when=${when || '1+'}`]
  // A file of its own each time: another mount namespace may still hold the last one mounted.
  const image = `${call}-${when}`
  copyImage(box, template, image)
  const copies: string[] = []
  const use = async ({ pid, log, ended }: Traced) => {
    let hasEnded = false
    ended.then(() => (hasEnded = true))
    for (;;) {
      const isNext = () => timesStopped(log()) === copies.length + 1
      await until('it stops or ends', () => hasEnded || isNext(), 30_000)
      if (hasEnded) return
      copyImage(box, image, `${image}-${copies.length}`)
      copies.push(`${image}-${copies.length}`)
      process.kill(pid, 'SIGCONT')
    }
  }
  await withMounted(box, image, disk, async jobDir => {
    const { code, stderr } = await trace(tracing, [command!, jobDir, ...names], use)
    assert.is(code, 0, stderr)
  })
  rmSync(box.path(image))
  return copies
}

/** How many times has the thread stopped that made the call? The others stop with it. */
function timesStopped(log: string): number {
  const callers = Array.from(log.matchAll(/^(\d+) +--- SIGSTOP /gm), ([, thread]) => thread!)
  const stopped = Array.from(log.matchAll(/^(\d+) +--- stopped by SIGSTOP ---$/gm), ([, thread]) => thread!)
  const last = callers.at(-1)
  const isStopped = stopped.filter(it => it === last).length >= callers.length // each thread stops each time
  return isStopped ? callers.length : callers.length - 1
}

/** Has the kernel a filesystem, and this machine the program that makes it? Only root can mount it. */
export function canMount({ kind, mkfs }: Disk): boolean {
  if (process.getuid?.() !== 0 || spawnSync(mkfs[0]!, ['-V']).error) return false
  spawnSync('modprobe', [kind])
  return readFileSync('/proc/filesystems', 'utf8').split(/\s/).includes(kind)
}
