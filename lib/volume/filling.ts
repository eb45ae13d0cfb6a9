import { chmodSync, rmdirSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { TrainerError } from '../errors.ts'
import { publishedFiles } from '../models.ts'
import { MIB } from '../quotas.ts'
import { enforceLimit, freeSpace, type Pruned } from '../storage.ts'
import { formatBytes } from '../text.ts'
import { HiddenMounts } from './hidden-mounts.ts'
import { makeImage } from './image.ts'
import { mountImage } from './mounts.ts'
import { copyFiles } from './moving.ts'
import type { Volume } from './place.ts'

/** Left free for the rest of the machine when an image is made. */
const RESERVE_BYTES = 64 * MIB

/**
 * Make an image of `bytes` with everything in it that is in the job's folder, out of everyone's sight.
 *
 * @throws {TrainerError} `no-space`; `quota-exceeded` if the folder has more than fits, and it is not prunable
 */
export async function fillImage(
  volume: Volume,
  fresh: string,
  bytes: number,
  onPrune: (pruned: Pruned) => void,
): Promise<void> {
  const { job, quota, folder, modelsDir, run } = volume
  const freeBytes = freeSpace(modelsDir)
  if (freeBytes < bytes + RESERVE_BYTES) {
    throw new TrainerError(
      'no-space',
      `Cannot make ${job}'s volume: ${formatBytes(freeBytes)} free on ${modelsDir}, ` +
        `${formatBytes(bytes + RESERVE_BYTES)} needed (image ${formatBytes(bytes)}, reserve ${formatBytes(RESERVE_BYTES)})`,
    )
  }
  await makeImage(fresh, bytes, job, run)
  await using hidden = await HiddenMounts.open(run)
  await mountImage(fresh, folder, hidden.run)
  const inside = hidden.path(folder)
  // Root's alone: a training that measures its folder could not read it.
  rmdirSync(join(inside, 'lost+found'))
  const { bavail, bsize } = statfsSync(inside)
  // A hundredth may go into folders that are laid out in another way.
  const fittingMb = (bavail * bsize * 0.99) / MIB
  const keep = await publishedFiles(folder, quota.models)
  await enforceLimit(folder, fittingMb, { prune: quota.prune, keep, onPrune })
  await copyFiles(volume, folder, inside)
  chmodSync(inside, 0o750)
  await hidden.run(['umount', folder])
}
