import { writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { isErrno } from '../../errors.ts'
import { parseMounts } from '../../system/mounts.ts'
import { listProcesses, readProc } from '../../system/processes.ts'
import { ProgramFailure, type RunProgram } from '../../system/programs.ts'

/** The time to wait: the kernel frees loop devices and busy mounts a moment after the last process that used them. */
const PATIENCE_MS = 3_000

/**
 * Return the device, or other source, of the topmost mount that a process, this one by default, sees on a folder.
 * Undefined if the process sees none, or is gone.
 */
export function mountedOn(folder: string, pid: number | 'self' = 'self'): string | undefined {
  return parseMounts(readProc(`${pid}/mountinfo`) ?? '').findLast(({ point }) => point === folder)?.source
}

/** List the loop devices that an image is attached to, found by its inode. */
export async function loopDevicesOf(image: string, run: RunProgram): Promise<string[]> {
  const names = await run(['losetup', '--list', '--noheadings', '--output', 'NAME', '--associated', image])
  return names.split('\n').filter(Boolean)
}

/**
 * Find a loop device that an image is attached to, other than that of its mount on `folder`. A sandbox or container
 * that still sees that mount counts as that mount.
 */
export async function strangeDeviceOf(
  image: string,
  folder: string,
  run: RunProgram,
): Promise<string | undefined> {
  const end = performance.now() + PATIENCE_MS
  for (;;) {
    const own = mountedOn(folder)
    const others = (await loopDevicesOf(image, run)).filter(device => device !== own)
    if (!others.length) return undefined
    if (performance.now() > end) {
      const seen = new Set(listProcesses().map(({ pid }) => mountedOn(folder, pid)))
      return others.find(device => !seen.has(device))
    }
    await delay(20)
  }
}

/** Mount an image on a folder, with devices and setuid programs in it disabled. */
export async function mountImage(image: string, folder: string, run: RunProgram): Promise<void> {
  await run(['mount', '-t', 'ext4', '-o', 'loop,nodev,nosuid', image, folder])
}

/**
 * Unmount a folder as soon as nobody has a file in it open.
 *
 * @throws {ProgramFailure} if it stays in use for a few seconds
 */
export async function unmount(folder: string, run: RunProgram): Promise<void> {
  const end = performance.now() + PATIENCE_MS
  for (;;) {
    try {
      await run(['umount', folder])
      return
    } catch (error) {
      if (!(error instanceof ProgramFailure) || performance.now() > end) throw error
      await delay(20)
    }
  }
}

/**
 * Make a loop device refuse `fstrim`, which would give the reserved blocks of its image back. The device keeps this for
 * the next image that is attached to it, which costs that one nothing but trims.
 */
export function refuseTrim(device: string): void {
  try {
    writeFileSync(`${device.replace('/dev/', '/sys/block/')}/queue/discard_max_bytes`, '0')
  } catch (error) {
    // A container's /sys may be read-only; the next mount then reserves a trimmed image again.
    if (!isErrno(error, 'EROFS', 'EACCES', 'ENOENT')) throw error
  }
}
