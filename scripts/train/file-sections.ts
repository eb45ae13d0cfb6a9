import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
} from 'node:fs'
import { dirname, join, sep } from 'node:path'
import type { Random } from './random.ts'

/** A piece from the middle of a file. `group` is its package or folder, which never straddles a split. */
export type FileSection = { path: string; group: string; bytes: Buffer }

const sectionBytes = 65_536
const smallestFileBytes = 8192
const triesPerSection = 20

/** The folders in which Linux machines, containers and bare appliances keep text, code and binaries. */
export const systemRoots = [
  '/usr/bin',
  '/usr/sbin',
  '/usr/lib',
  '/usr/libexec',
  '/usr/share',
  '/usr/include',
  '/usr/local',
  '/etc',
  '/bin',
  '/lib',
  dirname(process.execPath),
  join(import.meta.dirname, '../../node_modules'),
]

/**
 * Read sections of up to `count` different files below `roots`. Each is found by walking down at random: a folder of
 * ten thousand files weighs no more than its neighbour. The result depends on the random numbers and the files alone.
 * Links are not followed. Files that are missing, unreadable, small or copies of an earlier section are passed over.
 */
export function readFileSections(roots: readonly string[], count: number, random: Random): FileSection[] {
  const starts = distinctRoots(roots)
  const listFolder = listOnce()
  const seen = new Set<string>()
  const sections: FileSection[] = []
  for (let tries = count * triesPerSection; starts.length && tries > 0 && sections.length < count; tries--) {
    const root = random.pick(starts)
    const path = walkDown(root, listFolder, random)
    if (!path || seen.has(path)) continue
    seen.add(path)
    const bytes = readMiddle(path)
    const digest = bytes && createHash('sha256').update(bytes).digest('base64')
    if (!digest || seen.has(digest)) continue
    seen.add(digest)
    sections.push({ path, group: groupOf(root, path), bytes })
  }
  return sections
}

/** Resolve the roots, and drop those inside another: /bin is often a link to /usr/bin. */
function distinctRoots(roots: readonly string[]): string[] {
  const real = roots.flatMap(root => {
    try {
      return realpathSync(root)
    } catch {
      return []
    }
  })
  return [...new Set(real)].filter(root => !real.some(other => root.startsWith(other + sep)))
}

function walkDown(root: string, listFolder: (path: string) => Dirent[], random: Random): string | undefined {
  for (let folder = root; ; ) {
    const entries = listFolder(folder)
    if (!entries.length) return undefined
    const entry = random.pick(entries)
    const path = join(folder, entry.name)
    if (entry.isFile()) return path
    folder = path
  }
}

/** Make a function that lists a folder's files and folders in a fixed order; none if it cannot be read. */
function listOnce(): (path: string) => Dirent[] {
  const known = new Map<string, Dirent[]>()
  return path => {
    let entries = known.get(path)
    if (!entries) {
      try {
        entries = readdirSync(path, { withFileTypes: true })
          .filter(entry => entry.isFile() || entry.isDirectory())
          .sort((a, b) => (a.name < b.name ? -1 : 1))
      } catch {
        entries = []
      }
      known.set(path, entries)
    }
    return entries
  }
}

/** Name a file's group: the root and at most two names below it, such as /usr/share/doc/bash or /usr/bin/env. */
function groupOf(root: string, path: string): string {
  const names = path.slice(root.length + 1).split(sep)
  return join(root, ...names.slice(0, 2))
}

function readMiddle(path: string): Buffer | undefined {
  try {
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      const stat = fstatSync(descriptor)
      if (!stat.isFile() || stat.size < smallestFileBytes) return undefined
      const start = Math.max(0, Math.floor((stat.size - sectionBytes) / 2))
      const bytes = Buffer.alloc(Math.min(stat.size, sectionBytes))
      return bytes.subarray(0, readSync(descriptor, bytes, 0, bytes.length, start))
    } finally {
      closeSync(descriptor)
    }
  } catch {
    return undefined
  }
}
