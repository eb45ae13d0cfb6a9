import { basename } from 'node:path'
import { TrainerError } from '../../lib/errors.ts'
import { measure } from '../../lib/storage/measure.ts'
import { formatBytes, MIB } from '../../lib/text.ts'
import { encodeCheckpoint, isCheckpoint, type TrainingState } from './checkpoint.ts'

/** Bytes of names, figures and sentences in a model and its metadata, besides the weights. */
const descriptionBytes = 64 * 1024
const diskBlockBytes = 4096

/**
 * Decide how many checkpoints to keep: 2, or 1 where the quota is tight. They must fit beside one that is being
 * written, the model, and everything else in the folder.
 *
 * @throws {TrainerError} `training-failed` if not even one fits
 */
export async function checkpointsToKeep(
  dir: string,
  maxDiskMb: number,
  state: TrainingState,
): Promise<1 | 2> {
  const { usedBytes, prunable } = await measure(dir)
  const ownBytes = prunable
    .filter(({ path }) => isCheckpoint(basename(path.toString())))
    .reduce((sum, { bytes }) => sum + bytes, 0)
  const otherBytes = usedBytes - ownBytes

  const checkpointBytes = Math.ceil(encodeCheckpoint(state).length / diskBlockBytes) * diskBlockBytes
  const modelBytes = state.network.weights.byteLength + descriptionBytes
  const roomBytes = maxDiskMb * MIB - otherBytes - modelBytes
  if (roomBytes >= 3 * checkpointBytes) return 2
  if (roomBytes >= 2 * checkpointBytes) return 1
  throw new TrainerError(
    'training-failed',
    `Cannot train in ${dir}: model and checkpoints need ${formatBytes(modelBytes + 2 * checkpointBytes)}, ` +
      `but of --max-disk-mb ${maxDiskMb} other files take ${formatBytes(otherBytes)}; remove some or raise it`,
  )
}
