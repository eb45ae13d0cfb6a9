import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { TrainerError } from '../../errors.ts'
import { checkPublished, publishedFiles, supersededFiles } from '../../models.ts'
import { foldersIn } from '../../settings/layout.ts'
import { accountOf, freeSpace } from '../../storage/capacity.ts'
import { emptyFolder } from '../../storage/empty-folder.ts'
import type { Pruned } from '../../storage/prune.ts'
import { checkUsage, pruneTo } from '../../storage.ts'
import { native } from '../../system/bytes.ts'
import { syncFolder } from '../../system/durable.ts'
import { formatBytes, MIB } from '../../text.ts'
import { findDifference } from './compare-folders.ts'
import { HiddenMounts } from './hidden-mounts.ts'
import { makeImage } from './image.ts'
import type { Volume } from './location.ts'
import { mountImage } from './mounts.ts'

/** Copy a folder's files into another, with owners and times. No training may write to the folder meanwhile. */
async function copyFiles({ run }: Volume, from: string, to: string): Promise<void> {
  const { tmpDir } = foldersIn(from)
  if (existsSync(tmpDir)) await emptyFolder(tmpDir)
  await run(['cp', '--archive', '--', `${from}/.`, to])
  await run(['sync', '--file-system', to])
}

/**
 * Check that an image, before it is mounted over the job's folder, holds every file that is in the folder now.
 *
 * @throws {TrainerError} `storage` with the first file that it does not hold
 */
export async function assertHolds({ job, folder, run }: Volume, file: string): Promise<void> {
  if (!readdirSync(folder).length) return
  await using hidden = await HiddenMounts.open(run)
  // Mount it writable: after a power cut its journal must be replayed.
  await mountImage(file, folder, hidden.run)
  const difference = await findDifference(folder, hidden.path(folder))
  await hidden.run(['umount', folder])
  if (difference === undefined) return
  throw new TrainerError(
    'storage',
    `Cannot use ${job}'s volume: it lacks ${difference} of ${folder}, or has it with other content; ` +
      "to keep the folder's files, remove the volume with --keep-folder; to keep the volume's, move the folder's away",
  )
}

/**
 * Check that the job's folder, as it is now, has valid models of its own.
 *
 * @throws {TrainerError} `storage` if it has none: the volume then holds the only models
 */
export async function assertPublished({ job, quota, folder }: Volume): Promise<void> {
  const { missing, reason } = await checkPublished(folder, quota.models)
  if (!missing) return
  throw new TrainerError(
    'storage',
    `Cannot remove ${job}'s volume without keeping its files: ${folder} has no valid model of its own (${reason}); ` +
      'move its files away, and remove the volume without --keep-folder',
  )
}

/**
 * Delete the files beneath the mounted volume: those that it was filled from, or a copy of its files.
 *
 * @throws {TrainerError} `storage` with the first file there that the volume lacks; nothing is deleted then
 */
export async function reclaim(volume: Volume): Promise<void> {
  await using hidden = await openBeneath(volume)
  await emptyBeneath(volume, hidden)
}

/**
 * Copy the volume's files beneath it: the folder has all of them when the volume is unmounted.
 *
 * @throws {TrainerError} `no-space`, with both figures; `storage`
 */
export async function copyBeneath(volume: Volume): Promise<void> {
  const { job, folder, modelsDir, volumesDir, run } = volume
  await using hidden = await openBeneath(volume)
  await emptyBeneath(volume, hidden)
  const [neededBytes, freeBytes] = [await checkUsage(folder), freeSpace(modelsDir)]
  if (neededBytes > freeBytes) {
    throw new TrainerError(
      'no-space',
      `Cannot unmount ${job}'s volume: ${formatBytes(freeBytes)} free on ${modelsDir}, ` +
        `${formatBytes(neededBytes)} needed for its files; prune it or free some space`,
    )
  }
  // Reach both by the hidden mounts: a rename cannot cross mounts.
  const beneath = hidden.path(folder)
  const passage = hidden.path(join(volumesDir, `${job}.out`))
  const clear = () => run(['rm', '-rf', '--', passage])
  await clear()
  mkdirSync(passage, { mode: 0o700 })
  try {
    await copyFiles(volume, folder, passage)
    const difference = await findDifference(folder, passage)
    if (difference !== undefined) {
      throw new TrainerError(
        'storage',
        `Cannot unmount ${job}'s volume: ${difference} changed while it was copied; stop what writes to it`,
      )
    }
  } catch (error) {
    await clear() // others may be what has filled the disk
    throw error
  }
  const { uid, gid, mode } = statSync(folder)
  chownSync(beneath, uid, gid)
  chmodSync(beneath, mode & 0o7777)
  for (const name of readdirSync(passage, 'latin1')) {
    renameSync(native(`${passage}/${name}`), native(`${beneath}/${name}`))
  }
  rmdirSync(passage)
  await syncFolder(beneath)
}

async function openBeneath({ folder, run }: Volume): Promise<HiddenMounts> {
  const hidden = await HiddenMounts.open(run)
  try {
    await hidden.run(['umount', folder])
    return hidden
  } catch (error) {
    await hidden[Symbol.asyncDispose]() // it keeps this program alive
    throw error
  }
}

async function emptyBeneath({ job, folder, modelsDir }: Volume, hidden: HiddenMounts): Promise<void> {
  const beneath = hidden.path(folder)
  if (!readdirSync(beneath).length) return
  const difference = await findDifference(beneath, folder)
  if (difference !== undefined) {
    throw new TrainerError(
      'storage',
      `Cannot free the space beneath ${job}'s volume: the volume lacks ${difference} of the folder beneath, or has it ` +
        `with other content; move that file away: mount --bind ${modelsDir} /mnt shows it in /mnt/${job}`,
    )
  }
  await emptyFolder(beneath)
}

/** Bytes left free for the rest of the machine when an image is made. */
const RESERVE_BYTES = 64 * MIB

/**
 * Make an image of `bytes` that holds everything in the job's folder. It is mounted out of everybody's sight.
 *
 * @throws {TrainerError} `no-space`; `quota-exceeded` if the folder holds more than fits even after pruning
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
  // Remove it: it is root's alone, and a training that measures its folder could not read it.
  rmdirSync(join(inside, 'lost+found'))
  const keep = await publishedFiles(folder, quota.models)
  // Leave 1 % slack: folders may take more blocks on ext4.
  const superseded = supersededFiles(folder)
  const rules = { ...quota.globs, superseded, keep, onPrune }
  await pruneTo(folder, accountOf(inside).freeBytes * 0.99, rules)
  await copyFiles(volume, folder, inside)
  chmodSync(inside, 0o750)
  await hidden.run(['umount', folder])
}
