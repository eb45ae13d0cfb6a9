import { randomUUID } from 'node:crypto'
import { closeSync, lstatSync, openSync, readSync, statfsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { TrainerError } from '../../errors.ts'
import type { JobName } from '../../quotas.ts'
import { BTRFS } from '../../storage/capacity.ts'
import { openPlain, reasonOf } from '../../system/plain-file.ts'
import type { RunProgram } from '../../system/programs.ts'
import { MIB } from '../../text.ts'

/** The least quota of a volume: below it ext4's own needs leave too little. */
export const MIN_QUOTA_BYTES = 16 * MIB

/** The start of the identifier of every filesystem made here: `ransomEy` in hex. The rest is random. */
const UUID_START = '72616e73-6f6d-4579'

/** A job's image; `reservedBytes` of its `bytes` are really reserved on the disk. */
export type Image = { bytes: number; reservedBytes: number }

/**
 * Compute the size of the image for a quota. It leaves a thousandth for the blocks in which the disk's filesystem notes
 * where the image lies: with them the image is within the quota.
 */
export function imageBytesFor(quotaBytes: number): number {
  const bytes = quotaBytes - quotaBytes / 1024
  return bytes - (bytes % 4096)
}

/**
 * Make an image with every block reserved on the disk, and an empty ext4 in it. Replaces a leftover of that name.
 *
 * mkfs would give the blocks back but for `nodiscard`, and a full disk would lose data that was reported as written.
 *
 * @throws {ProgramFailure}
 */
export async function makeImage(path: string, bytes: number, job: JobName, run: RunProgram): Promise<void> {
  await rm(path, { force: true })
  closeSync(openSync(path, 'wx', 0o600))
  // Written elsewhere at each overwriting, it would take more of the disk than was reserved; see btrfs(5).
  if (statfsSync(path).type === BTRFS) await run(['chattr', '+C', '--', path])
  await run(['fallocate', '--length', String(bytes), path])
  const isSmall = bytes < 512 * MIB
  await run([
    ...['mkfs.ext4', '-q', '-F', '-b', '4096', '-m', '0', '-e', 'remount-ro'],
    ...['-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0', '-O', '^resize_inode'],
    // An inode for each 4 KiB: a sixteenth of the volume, so that files of any size run out of bytes first.
    ...['-J', `size=${isSmall ? 4 : 16}`, '-i', '4096'],
    ...['-L', labelOf(job), '-U', `${UUID_START}${randomUUID().slice(18)}`, path],
  ])
}

/**
 * Inspect a job's image.
 *
 * @returns undefined if there is none
 * @throws {TrainerError} `storage` if something else has its name
 */
export function inspectImage(path: string, job: JobName): Image | undefined {
  if (!lstatSync(path, { throwIfNoEntry: false })) return undefined
  const { label, uuid, ...image } = readImage(path)
  if (label === labelOf(job) && uuid.startsWith(UUID_START)) return image
  throw notAVolume(path, 'it was not made here')
}

function readImage(path: string): Image & { label: string; uuid: string } {
  let fd: number | undefined
  try {
    const { fd: opened, stats } = openPlain(dirname(path), basename(path))
    fd = opened
    // Read the superblock: its identifier stands at 0x68, its label at 0x78; see ext4(5).
    const block = Buffer.alloc(1024)
    readSync(fd, block, 0, 1024, 1024)
    const uuid = block.toString('hex', 0x68, 0x78).replace(/^(.{8})(.{4})(.{4})/, '$1-$2-$3-')
    const label = block.toString('latin1', 0x78, 0x88).replace(/\0.*$/, '')
    const [bytes, blockBytes] = [Number(stats.size), Number(stats.blocks) * 512]
    return { bytes, reservedBytes: Math.min(bytes, blockBytes), label, uuid }
  } catch (error) {
    throw notAVolume(path, `it ${reasonOf(error)}`)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function labelOf(job: JobName): string {
  return `ransomeye-${job}`
}

function notAVolume(path: string, reason: string): TrainerError {
  return new TrainerError('storage', `Cannot use ${path} as a volume: ${reason}; move it away`)
}
