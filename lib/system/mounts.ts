import { isWithin } from './bytes.ts'

/** A mount, as a process sees it. */
export type Mount = {
  /** As `mnt_id` of a descriptor has it; see proc_pid_fdinfo(5). */
  id: string
  /** The folder that it is mounted on. */
  point: string
  /** The folder of its filesystem that is seen there. */
  root: string
  /** The number of its filesystem's device, `major:minor`. */
  device: string
  type: string
  /** What is mounted: a device, or another filesystem's word for it. */
  source: string
  /** Those of the mount, then those of its filesystem. */
  options: string[]
}

/**
 * Read a table of mounts, in its order: a later mount covers an earlier one of the same point.
 *
 * @param mountinfo as in proc_pid_mountinfo(5)
 */
export function parseMounts(mountinfo: string): Mount[] {
  return mountinfo.split('\n').flatMap(line => {
    const [before = '', after = ''] = line.split(' - ')
    const [id, , device, root, point, options] = before.split(' ')
    const [type, source, ownOptions] = after.split(' ')
    if (!id || device === undefined || point === undefined || type === undefined) return []
    return {
      id,
      point: decodeMountField(point),
      root: decodeMountField(root ?? '/'),
      device,
      type,
      source: decodeMountField(source ?? ''),
      options: [...(options ?? '').split(','), ...(ownOptions ?? '').split(',')],
    }
  })
}

/** Where a path that is reached by a mount lies on its filesystem; undefined if the mount does not lead to it. */
export function pathOnFilesystem({ point, root }: Mount, path: string): string | undefined {
  const [above, start] = [point, root].map(it => (it === '/' ? '' : it))
  return isWithin(path, above!) ? `${start}${path.slice(above!.length)}` : undefined
}

/** Decode a field of a table of mounts, which writes a space, tab, newline or backslash as three octal digits. */
export function decodeMountField(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  )
}
