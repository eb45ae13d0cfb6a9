import { lstatSync, type Stats, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { foldersIn } from '../settings/layout.ts'
import { overheadOn } from '../storage/capacity.ts'
import type { Entry } from '../storage/entry.ts'
import { allocatedOf, chargeOf } from '../storage/measure.ts'
import { isWithin } from '../system/bytes.ts'
import {
  boundPaths,
  DELETED,
  eachDescriptor,
  eachMapping,
  everyThread,
  firstLiveThread,
  infoOf,
  numberOf,
  statOrNothing,
  TOO_LONG,
} from '../system/descriptors.ts'
import { type Mount, parseMounts, pathOnFilesystem } from '../system/mounts.ts'
import { inodeId } from '../system/plain-file.ts'
import { readProc } from '../system/processes.ts'
import { temporaryFolder } from './sandbox.ts'

/** Files of the job's folder that no walk sees because they are deleted, but that processes still hold. */
export type HeldFiles = {
  /** Charged bytes, each file once; at least so many. */
  deletedBytes: number
  /** The same without what is charged of sparse files beyond their blocks. */
  allocatedBytes: number
  /** How many they are. */
  deletedInodes: number
  /** Deleted files that are mapped and not open, where this user may not look at them: they may have more. */
  unseen: Set<string>
  /** The largest of the files that are deleted and open. */
  largest: HeldFile[]
  /**
   * How many nobody may look into: open files on their way from process to process, processes that keep others out, and deleted
   * folders in which something else is held.
   */
  outOfSight: number
  /** How many of them are such folders. */
  goneFolders: number
}

/** A deleted file, its path as the process that holds it saw that, and one such process. */
export type HeldFile = { path: string; bytes: number; pid: number }

export type HeldOptions = {
  /** The job's folder. */
  dir: string
  /** Files made since then are its training's, by whatever path it has reached them; milliseconds since 1970. */
  sinceMs: number
  /**
   * Look into sockets, and at the descriptors of each thread, unless all of a process have the same. It takes longer, and keeps
   * everything else waiting while one of the processes changes its mappings: they must stand still.
   */
  isThorough: boolean
  threadsShareFiles?: boolean
  /** Ends the look; its reason is thrown. */
  signal?: AbortSignal
}

/** So many files are worth to be named. */
const LARGEST = 3

export function nothingHeld(): HeldFiles {
  return {
    deletedBytes: 0,
    allocatedBytes: 0,
    deletedInodes: 0,
    largest: [],
    unseen: new Set(),
    outOfSight: 0,
    goneFolders: 0,
  }
}

/** Look at the deleted files that these processes have open or mapped; other users' processes are not readable. */
export async function heldFiles(pids: number[], options: HeldOptions): Promise<HeldFiles> {
  const { isThorough, signal } = options
  const devices = devicesOf(options.dir)
  const isCharged = chargeRule(options, devices)
  const mountOf = mountFinder()
  const ownPath = pathsOf(options.dir)
  const isGone = goneTest(options.dir)
  const overhead = overheadOn(options.dir)
  /** By device and inode. */
  const bytesOf = new Map<string, number>()
  const inodes = new Set<number>()
  const sockets = new Map<string, number>()
  const goneFolders = new Set<string>()
  const held = nothingHeld()
  const add = (stats: Stats, pid: number, path: string) => {
    // A folder that has held many names keeps its size when they are gone.
    if (stats.nlink > 0) return
    const id = inodeId(stats)
    if (bytesOf.has(id)) return
    if (!isCharged(stats.dev, path, stats.birthtimeMs)) return
    const bytes = chargeOf(stats, overhead)
    bytesOf.set(id, bytes)
    held.allocatedBytes += allocatedOf(stats, overhead)
    inodes.add(stats.ino)
    note({ path, bytes, pid })
  }
  const note = (file: HeldFile) => {
    const { largest } = held
    if (largest.length === LARGEST && file.bytes <= largest.at(-1)!.bytes) return
    largest.push(file)
    largest.sort((a, b) => b.bytes - a.bytes)
    largest.length = Math.min(largest.length, LARGEST)
  }
  const visit = (link: string, target: string) => {
    const pid = Number(link.split('/', 3)[2])
    const socket = isThorough && /^socket:\[(\d+)\]$/.exec(target)?.[1]
    if (socket && !sockets.has(socket)) {
      sockets.set(socket, pid)
      held.outOfSight += Number(/^scm_fds:\s*(\d+)/m.exec(infoOf(link))?.[1] ?? 0)
    }
    if (target !== TOO_LONG && !target.endsWith(DELETED)) return
    const mount = mountOf(link)
    if (mount && !devices.has(numberOf(mount.device))) return
    const path = target === TOO_LONG ? target : ownPath(mount, target.slice(0, -DELETED.length))
    const stats = statOrNothing(link)
    if (stats) add(stats, pid, path)
    if (isGone(dirname(path))) goneFolders.add(dirname(path))
  }
  // Such a process has called prctl(PR_SET_DUMPABLE, 0), or runs a program that it may not read.
  await eachDescriptor(pids, threadsFor(options), signal, visit, () => held.outOfSight++)
  const how = { aside: !isThorough, signal }
  const isDeleted = (line: string) => line.endsWith(DELETED)
  await eachMapping(pids, isDeleted, how, async ({ pid, inode, device, path: seen, bytes }, statsOf) => {
    const path = Buffer.from(seen, 'latin1').toString()
    // On btrfs and overlays stat() gives another device than the list of mappings.
    if (inodes.has(inode)) return
    if (isGone(dirname(path))) goneFolders.add(dirname(path))
    const stats = devices.has(device) ? await statsOf() : undefined
    if (stats) return add(stats, pid, path)
    if (!isCharged(device, path, 0)) return
    const id = `mapped ${inode}`
    held.unseen.add(id)
    bytesOf.set(id, Math.max(bytes, bytesOf.get(id) ?? 0))
  })
  for await (const path of boundPaths(sockets))
    if (!path.startsWith('/') || isGone(path)) goneFolders.add(path)
  for (const bytes of bytesOf.values()) held.deletedBytes += bytes
  held.deletedInodes = bytesOf.size
  // A deleted folder stays on the disk as long as anything is held that was in it, and is open itself nowhere.
  held.goneFolders = goneFolders.size
  held.outOfSight += goneFolders.size
  return held
}

/** Find the entries of the job's folder that processes have open, or something in them. */
export async function openEntries(entries: Entry[], pids: number[], dir: string): Promise<Set<Entry>> {
  const files = new Map(entries.map(entry => [inodeId(entry), entry]))
  const folders = new Map(entries.flatMap(it => (it.isFolder ? [[it.path.toString(), it] as const] : [])))
  const open = new Set<Entry>()
  if (!entries.length) return open
  const { tmpDir } = foldersIn(dir)
  await eachDescriptor(pids, firstLiveThread, undefined, (link, target) => {
    if (!isWithin(target, dir) && !temporaryFolder.test(target)) return
    const stats = statOrNothing(link)
    if (!stats?.isFile()) return
    const entry = files.get(inodeId(stats))
    if (entry) open.add(entry)
    if (!folders.size) return
    for (const file of [target, target.replace(temporaryFolder, tmpDir)]) {
      for (let end = file.indexOf('/', 1); end > 0; end = file.indexOf('/', end + 1)) {
        const folder = folders.get(file.slice(0, end))
        if (folder) open.add(folder)
      }
    }
  })
  return open
}

/** Tells whose descriptors are to be looked at: of each thread, where they may have their own. */
function threadsFor({ isThorough, threadsShareFiles }: HeldOptions): (pid: number) => string[] {
  return isThorough && !threadsShareFiles ? everyThread : firstLiveThread
}

/**
 * Tells whether a deleted file was one of the job's: on its filesystem, and in its folder or made since its training
 * began. In a sandbox the folders for temporary files are folders of the job.
 */
function chargeRule(
  { dir, sinceMs }: HeldOptions,
  devices: Devices,
): (dev: number, path: string, madeMs: number) => boolean {
  const isInside = (path: string) => isWithin(path, dir) || temporaryFolder.test(path)
  return (dev, path, madeMs) =>
    devices.has(dev) && !inMemory.test(path) && (path === TOO_LONG || isInside(path) || madeMs >= sinceMs)
}

/** What the kernel calls memory that has no file; an overlay does not tell it from the files of its layers. */
const inMemory = /^\/(memfd:|dev\/zero$|SYSV[\da-f]{8}$)/

export type Devices = Pick<Set<number>, 'has'>

/** Finds the mount by which a descriptor was reached, in the list of those that its process sees; undefined for other links. */
function mountFinder(): (link: string) => Mount | undefined {
  const mounts = new Map<string, Mount | undefined>()
  return link => {
    const id = /^mnt_id:\s*(\d+)/m.exec(infoOf(link))?.[1]
    if (id === undefined) return undefined
    if (!mounts.has(id)) {
      mounts.set(id, undefined) // the kernel's own mounts, such as that of memfd, are in no list
      for (const mount of parseMounts(readProc(`${link.split('/', 3)[2]}/mountinfo`) ?? ''))
        mounts.set(mount.id, mount)
    }
    return mounts.get(id)
  }
}

/** Gives a path as it is in the job's folder, where a mount leads into that by another name. */
function pathsOf(dir: string): (mount: Mount | undefined, path: string) => string {
  const own = mountAbove(dir, parseMounts(readProc('self/mountinfo') ?? ''))
  const start = own && pathOnFilesystem(own, dir)
  return (mount, path) => {
    const place = mount && pathOnFilesystem(mount, path)
    const isOurs = mount?.device === own?.device && start !== undefined && place !== undefined
    return isOurs && isWithin(place, start) ? `${dir}${place.slice(start.length)}` : path
  }
}

/** The mount that covers a folder. */
function mountAbove(dir: string, mounts: Mount[]): Mount | undefined {
  // The last of the deepest covers the others.
  return mounts
    .filter(({ point }) => isWithin(dir, point === '/' ? '' : point))
    .reverse()
    .sort((a, b) => b.point.length - a.point.length)[0]
}

/** Tells whether a folder of the job, as its training has seen it, is gone. */
function goneTest(dir: string): (path: string) => boolean {
  const { tmpDir } = foldersIn(dir)
  const isThere = (path: string) => {
    try {
      return lstatSync(path, { throwIfNoEntry: false }) !== undefined
    } catch {
      return false
    }
  }
  return path =>
    (isWithin(path, dir) || temporaryFolder.test(`${path}/`)) &&
    !isThere(path) &&
    !isThere(`${path}/`.replace(temporaryFolder, `${tmpDir}`))
}

/**
 * The numbers by which a folder's filesystem goes: on btrfs and overlays stat() and the list of mappings differ. An overlay
 * gives the files of each of its layers a number that stands nowhere, so there it is any that no other mount has.
 */
export function devicesOf(dir: string): Devices {
  const devices = new Set([statSync(dir).dev])
  const mounts = parseMounts(readProc('self/mountinfo') ?? '')
  const mount = mountAbove(dir, mounts)
  if (!mount) return devices
  devices.add(numberOf(mount.device))
  if (mount.type !== 'overlay') return devices
  // Some kernels give a mapped file the number of the filesystem that the overlay writes to.
  const upper = statOrNothing(
    mount.options.find(it => it.startsWith('upperdir='))?.slice('upperdir='.length) ?? '',
  )
  if (upper) devices.add(upper.dev)
  const others = new Set(mounts.map(({ device }) => numberOf(device)).filter(device => !devices.has(device)))
  return { has: device => !others.has(device) }
}
