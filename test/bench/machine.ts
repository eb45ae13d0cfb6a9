import { readFileSync } from 'node:fs'
import { cpus, release, tmpdir, totalmem, type } from 'node:os'

/** The machine that the figures were measured on. */
export function describeMachine(): string {
  const processors = cpus()
  const memoryGib = Math.round(totalmem() / 2 ** 30)
  const filesystem = `${filesystemOf(tmpdir())} on ${tmpdir()}`
  return `${processors.length} cores (${processors[0]?.model.trim()}), ${memoryGib} GiB of memory, Node.js ${process.version}, ${type()} ${release()}, ${filesystem}`
}

function filesystemOf(dir: string): string {
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map(mount => mount.split(' '))
    .filter(([, point]) => point && `${dir}/`.startsWith(point.endsWith('/') ? point : `${point}/`))
  // The deepest mount point; of several mounted on one, the last covers the others.
  return mounts.reduce((a, b) => (b[1]!.length >= a[1]!.length ? b : a))[2]!
}
