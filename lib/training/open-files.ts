import { readdirSync, readlinkSync, statSync } from 'node:fs'
import { chargeOf } from '../storage/measure.ts'
import { inodeId } from '../system/plain-file.ts'
import { readProc } from '../system/processes.ts'

/** A regular file that a process has open or mapped. */
export type OpenFile = {
  /** `dev:ino`, as {@link inodeId} gives it. */
  id: string
  /** As the process sees it. */
  path: string
  /** Charged bytes, if the file is deleted: no walk can see it, and the space is not free. */
  deletedBytes: number
}

const DELETED = ' (deleted)'

/** The regular files that these processes have open, each once; other users' processes are not readable. */
export function listOpenFiles(pids: number[]): OpenFile[] {
  const files = new Map<string, OpenFile>()
  for (const pid of pids) {
    for (const file of [...openDescriptors(pid), ...deletedMappings(pid)]) {
      const known = files.get(file.id)
      if (!known || known.deletedBytes < file.deletedBytes) files.set(file.id, file)
    }
  }
  return [...files.values()]
}

function openDescriptors(pid: number): OpenFile[] {
  return list(`/proc/${pid}/fd`).flatMap(name => {
    try {
      const stats = statSync(`/proc/${pid}/fd/${name}`)
      if (!stats.isFile()) return []
      const deletedBytes = stats.nlink === 0 ? chargeOf(stats) : 0
      const path = readlinkSync(`/proc/${pid}/fd/${name}`)
      return [
        {
          id: inodeId(stats),
          path: path.endsWith(DELETED) ? path.slice(0, -DELETED.length) : path,
          deletedBytes,
        },
      ]
    } catch {
      return [] // closed meanwhile
    }
  })
}

/** Files that are deleted and closed but still mapped hold their space too; the mapped extent bounds it below. */
function deletedMappings(pid: number): OpenFile[] {
  const maps = readProc(`${pid}/maps`)
  if (!maps?.includes(DELETED)) return []
  return maps.split('\n').flatMap(line => {
    if (!line.endsWith(DELETED)) return []
    const [range, , offset, device, inode, ...path] = line.split(/ +/)
    const [start, end] = range!.split('-').map(address => Number.parseInt(address, 16))
    const [major, minor] = device!.split(':').map(part => Number.parseInt(part, 16))
    const deletedBytes = Number.parseInt(offset!, 16) + end! - start!
    const id = inodeId({ dev: makedev(major!, minor!), ino: Number(inode) })
    return [{ id, path: path.join(' ').slice(0, -DELETED.length), deletedBytes }]
  })
}

/** The number that stat gives for a device; see gnu_dev_makedev in glibc's sys/sysmacros.h. */
function makedev(major: number, minor: number): number {
  return (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)
}

function list(dir: string): string[] {
  try {
    return readdirSync(dir)
  } catch {
    return []
  }
}
