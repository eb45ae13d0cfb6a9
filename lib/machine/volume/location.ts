import { lchownSync, lstatSync, mkdirSync } from 'node:fs'
import { TrainerError } from '../../errors.ts'
import type { JobName, Quota } from '../../quotas.ts'
import { imageOf, layout } from '../../settings/layout.ts'
import type { RunProgram } from '../../system/programs.ts'
import { quoteWord } from '../../text.ts'
import { loopDevicesOf, mountedOn, strangeDeviceOf } from './mounts.ts'

/** The location of one job's volume, mounted or not, made or not. */
export type Volume = {
  job: JobName
  quota: Quota
  modelsDir: string
  /** The job's folder, on which the volume is mounted. */
  folder: string
  /** Root's own folder of images. */
  volumesDir: string
  image: string
  run: RunProgram
}

/**
 * Locate a job's volume.
 *
 * @param modelsDir absolute and real
 */
export function locateVolume(job: JobName, quota: Quota, modelsDir: string, run: RunProgram): Volume {
  return {
    job,
    quota,
    modelsDir,
    folder: layout(modelsDir, job).jobDir,
    ...imageOf(modelsDir, job),
    run,
  }
}

/**
 * Is the volume mounted on its folder?
 *
 * @throws {TrainerError} `storage` if something else is mounted there
 */
export async function isMounted({ job, folder, image, run }: Volume): Promise<boolean> {
  const source = mountedOn(folder)
  if (source === undefined) return false
  if (lstatSync(image, { throwIfNoEntry: false }) && (await loopDevicesOf(image, run)).includes(source))
    return true
  throw new TrainerError(
    'storage',
    `Cannot use ${folder} for ${job}'s volume: ${source} is mounted on it; ` +
      `unmount that: umount ${quoteWord(folder)}`,
  )
}

/**
 * Make the folder of images. Root alone can write in it, although it lies below a folder of the service's user; that
 * user may see whether there is an image.
 *
 * @throws {TrainerError} `storage` if something else has its name
 */
export function makeVolumesDir(path: string): void {
  if (!lstatSync(path, { throwIfNoEntry: false })) mkdirSync(path, { mode: 0o711 })
  const stats = lstatSync(path)
  if (stats.isDirectory() && stats.uid === 0 && !(stats.mode & 0o022)) return
  throw new TrainerError(
    'storage',
    `Cannot use ${path}: it must be a folder that only root can write to; move it away`,
  )
}

/** The user and group of the service. */
export type Owner = { uid: number; gid: number }

/** Give the service's user those of `paths` that root owns; otherwise it could not write to them. */
export function handOver(paths: string[], { uid, gid }: Owner): void {
  for (const path of paths) {
    if (lstatSync(path, { throwIfNoEntry: false })?.uid === 0) lchownSync(path, uid, gid)
  }
}

/**
 * Check that the image is used for nothing but this volume.
 *
 * @throws {TrainerError} `storage` with another device that it is attached to
 */
export async function assertNotElsewhere({ job, folder, image, run }: Volume): Promise<void> {
  const device = await strangeDeviceOf(image, folder, run)
  if (device === undefined) return
  throw new TrainerError(
    'storage',
    `Cannot use the image of ${job}'s volume: ${image} is attached to ${device}, which is not mounted on ${folder}; ` +
      `unmount it there, or detach it: losetup -d ${device}`,
  )
}
