import { statSync } from 'node:fs'
import { TrainerError } from '../errors.ts'
import { parseMounts } from '../system/mounts.ts'
import { readProc } from '../system/processes.ts'

/** Mount options by which a machine keeps its locks to itself, by the type of the filesystem; see nfs(5), mount.lustre(8). */
const ownLocks: Record<string, string[]> = {
  nfs: ['nolock', 'local_lock=flock', 'local_lock=all'],
  nfs4: ['nolock', 'local_lock=flock', 'local_lock=all'],
  lustre: ['localflock'],
}

/**
 * Refuse a folder whose locks other machines do not see: two of them would train in it at once.
 *
 * @throws {TrainerError} `config`, naming the mount and its option
 */
export function assertSharedLocks(folder: string): void {
  const fault = findOwnLocks(statSync(folder).dev, readProc('self/mountinfo') ?? '')
  if (!fault) return
  const { point, option } = fault
  throw new TrainerError(
    'config',
    `Cannot lock ${folder}: ${point} is mounted with ${option}, so that other machines do not see its locks; mount it without`,
  )
}

/**
 * The mount of a device that keeps its locks to itself, with the option that says so.
 *
 * @param mountinfo as in proc_pid_mountinfo(5)
 */
export function findOwnLocks(
  device: number,
  mountinfo: string,
): { point: string; option: string } | undefined {
  for (const mount of parseMounts(mountinfo)) {
    if (mount.device !== nameOf(device)) continue
    const option = ownLocks[mount.type]?.find(it => mount.options.includes(it))
    if (option) return { point: mount.point, option }
  }
  return undefined
}

/** As the kernel writes a device number; Node.js gives it as the C library packs it. */
function nameOf(device: number): string {
  const packed = BigInt(device)
  const major = ((packed >> 8n) & 0xfffn) | ((packed >> 32n) & 0xfffff000n)
  const minor = (packed & 0xffn) | ((packed >> 12n) & 0xffffff00n)
  return `${major}:${minor}`
}
