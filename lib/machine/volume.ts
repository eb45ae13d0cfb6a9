import { rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { TrainerError } from '../errors.ts'
import type { JobName } from '../quotas.ts'
import { stateDirOf } from '../settings/layout.ts'
import { accountOf } from '../storage/capacity.ts'
import type { Pruned } from '../storage/prune.ts'
import { replaceDurably, storageError, syncFolder } from '../system/durable.ts'
import { makeFolder } from '../system/plain-file.ts'
import { ProgramFailure } from '../system/programs.ts'
import { formatBytes, MIB } from '../text.ts'
import { imageBytesFor, inspectImage, MIN_QUOTA_BYTES } from './volume/image.ts'
import {
  assertNotElsewhere,
  handOver,
  isMounted,
  makeVolumesDir,
  type Owner,
  type Volume,
} from './volume/location.ts'
import { mountedOn, mountImage, refuseTrim, unmount } from './volume/mounts.ts'
import { assertHolds, assertPublished, copyBeneath, fillImage, reclaim } from './volume/move-files.ts'

/** The state of a volume; sizes in bytes. */
export type VolumeStatus = {
  job: JobName
  folder: string
  image: string
  state: 'none' | 'unmounted' | 'mounted'
  quotaBytes: number
  imageBytes: number
  /** The part of `imageBytes` that is really reserved on the disk: less, if somebody has trimmed the volume. */
  reservedBytes: number
  /** Bytes that files can fill, if mounted. */
  usableBytes?: number
  /** Bytes that files fill, if mounted. */
  usedBytes?: number
}

/**
 * Make the job's folder a filesystem of its own, no larger than the quota, that holds everything in the folder. The
 * folder stays as it is until the moment in which the volume is mounted over it; the files beneath are deleted last.
 * Leftovers of an earlier attempt are used or made anew.
 *
 * @param owner gets everything in it; without one, files keep their owners
 * @param onPrune called for each checkpoint or temporary file that is deleted because the folder holds more than fits
 * @throws {TrainerError} `config` (a quota too small), `no-space`, `quota-exceeded` (models that do not fit),
 * `storage`
 */
export async function createVolume(
  volume: Volume,
  owner: Owner | undefined,
  onPrune: (pruned: Pruned) => void,
): Promise<void> {
  const { job, quota, folder, image, modelsDir, volumesDir, run } = volume
  const { quotaBytes } = quota
  if (quotaBytes < MIN_QUOTA_BYTES) {
    throw new TrainerError(
      'config',
      `Cannot make ${job}'s volume: maxDiskMb is ${quota.maxDiskMb}, at least ${MIN_QUOTA_BYTES / MIB} are needed`,
    )
  }
  const wantedBytes = imageBytesFor(quotaBytes)
  makeFolder(folder)
  await isMounted(volume) // throws where something else is mounted, which is not ours to touch
  const stateDir = stateDirOf(modelsDir)
  handOver([modelsDir, stateDir, join(stateDir, 'lock'), folder], owner ?? statSync(modelsDir))
  makeVolumesDir(volumesDir)
  const found = inspectImage(image, job)
  if (!found) {
    await replaceDurably(image, async fresh => {
      await fillImage(volume, fresh, wantedBytes, onPrune)
      await assertHolds(volume, fresh)
    })
  } else if (found.bytes !== wantedBytes) {
    const sizes = `${formatBytes(found.bytes)} instead of ${formatBytes(wantedBytes)}`
    throw new TrainerError(
      'storage',
      `Cannot make ${job}'s volume: ${image} is ${found.bytes < wantedBytes ? 'smaller' : 'larger'} than its quota of ` +
        `${formatBytes(quotaBytes)} needs, ${sizes}; remove the volume and create it anew`,
    )
  }
  await mountVolume(volume)
  if (owner) await run(['chown', '--recursive', '--no-dereference', `${owner.uid}:${owner.gid}`, folder])
}

/**
 * Mount the volume over the job's folder, unless it is mounted.
 *
 * @throws {TrainerError} `storage` if there is no volume, it is in use elsewhere, or the folder has files that it
 * lacks; `no-space` if it is mounted, but somebody had trimmed it and others use the bytes that came free
 */
export async function mountVolume(volume: Volume): Promise<void> {
  const { job, folder, image, run } = volume
  await attach(volume)
  refuseTrim(mountedOn(folder)!)
  const { bytes, reservedBytes } = inspectImage(image, job)!
  try {
    // fallocate leaves blocks alone that are already reserved.
    await run(['fallocate', '--length', String(bytes), image])
  } catch (cause) {
    if (!(cause instanceof ProgramFailure)) throw cause
    throw new TrainerError(
      'no-space',
      `${job}'s volume is mounted, but ${formatBytes(bytes - reservedBytes)} of ${image} cannot be reserved again: ` +
        `${cause.message}; free some space and mount it again`,
      { cause },
    )
  }
}

/**
 * Unmount the volume. From the same moment on the folder itself has all of its files.
 *
 * @returns false if it is not mounted
 * @throws {TrainerError} `no-space`; `storage` if it is in use, and stays mounted
 */
export async function unmountVolume(volume: Volume): Promise<boolean> {
  const { job, folder, run } = volume
  if (!(await isMounted(volume))) return false
  await copyBeneath(volume)
  try {
    await unmount(folder, run)
  } catch (cause) {
    await reclaim(volume)
    if (!(cause instanceof ProgramFailure)) throw cause
    const reason = `${cause.message}; stop what uses it (fuser -vm ${folder} lists it)`
    throw new TrainerError('storage', `Cannot unmount ${job}'s volume: ${reason}`, { cause })
  }
  return true
}

/**
 * Unmount the volume and delete its image. The folder itself keeps all of its files.
 *
 * @param keepsFolder delete an unmounted volume together with its files; the folder, with valid models, keeps its own
 * @returns false if there is no volume
 * @throws {TrainerError} as {@link mountVolume} and {@link unmountVolume}; `storage` if the folder has no valid models
 */
export async function removeVolume(volume: Volume, keepsFolder: boolean): Promise<boolean> {
  const { job, image, volumesDir } = volume
  rmSync(`${image}.tmp`, { force: true })
  const isThere = await isMounted(volume)
  if (!isThere && !inspectImage(image, job)) return false
  if (keepsFolder && !isThere) {
    await assertNotElsewhere(volume)
    await assertPublished(volume)
  } else {
    // Mount it first: of a volume that others unmounted, the folder may have no model at all.
    await attach(volume)
    await unmountVolume(volume)
  }
  rmSync(image)
  await syncFolder(volumesDir)
  return true
}

/** Inspect a volume. Changes nothing. */
export async function volumeStatus(volume: Volume): Promise<VolumeStatus> {
  const { job, quota, folder, image } = volume
  const isHere = await isMounted(volume)
  const found = inspectImage(image, job)
  const { usedBytes, freeBytes } = isHere ? accountOf(folder) : { usedBytes: 0, freeBytes: 0 }
  return {
    job,
    folder,
    image,
    state: isHere ? 'mounted' : found ? 'unmounted' : 'none',
    quotaBytes: quota.quotaBytes,
    imageBytes: found?.bytes ?? 0,
    reservedBytes: found?.reservedBytes ?? 0,
    ...(isHere && { usableBytes: usedBytes + freeBytes, usedBytes }),
  }
}

/** Turn a failed program or a refusal of the system into an error to act on. Returns any other error as it is. */
export function volumeError(subject: string, cause: unknown): unknown {
  if (!(cause instanceof ProgramFailure)) return storageError(subject, cause)
  return new TrainerError('storage', `${subject}: ${cause.message}`, { cause })
}

/** Mount the volume unless it is mounted, and delete the files beneath it. */
async function attach(volume: Volume): Promise<void> {
  const { job, folder, image, run } = volume
  const isThere = await isMounted(volume)
  if (!inspectImage(image, job)) {
    throw new TrainerError('storage', `Cannot mount ${job}'s volume: there is no ${image}; create it`)
  }
  await assertNotElsewhere(volume)
  if (!isThere) {
    await assertHolds(volume, image)
    await mountImage(image, folder, run)
  }
  await reclaim(volume)
}
