import { type Dirent, lstatSync, opendirSync, type readdir } from 'node:fs'
import { opendir } from 'node:fs/promises'
import { join, posix, relative } from 'node:path'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { CACHE, CANDIDATE, GENERATIONS, HOME, TMP, WORK } from '../settings/layout.ts'
import { folderExists, reasonOf } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { isPublishable, judgeModel, type Model } from './judge.ts'

export type Findings = { valid: Model[]; rejected: Rejected[] }
type Rejected = { path: string; reason: string }

/**
 * Find the files in a folder that the job's globs call models, and judge each. `folder` is the job's folder, without
 * its `work/`, or that `work/`, without its temporary files and caches. A missing folder has no models.
 *
 * @param isCheckpoint tells of a name below `folder` whether it is a checkpoint or in one: such a file is no model
 * @throws {TrainerError} `storage` if the folder cannot be listed; the reason of `signal`
 */
export async function findModels(
  folder: string,
  globs: string[],
  isCheckpoint: (name: string) => boolean = () => false,
  signal?: AbortSignal,
): Promise<Findings> {
  const names = await listNames(folder, globs).catch(error => {
    if (error instanceof TooManyNames) return error
    throw error
  })
  if (names instanceof TooManyNames) return { valid: [], rejected: [{ path: folder, reason: names.why }] }
  const found = await judgeAll(
    folder,
    names.filter(name => !isCheckpoint(name)),
    signal,
  )
  return {
    ...found,
    rejected: found.rejected.map((it, index) => (index < MOST_TOLD ? withRemedy(folder, it) : it)),
  }
}

/** So many are told: a training can leave tens of thousands. */
export const MOST_TOLD = 16

/** What a glob may mean. globby sorts the names of a folder out in one piece, in which nobody hears a signal. */
const MOST_NAMES = 32_768

class TooManyNames extends TrainerError {
  readonly why = `has more than ${MOST_NAMES} names that models means; let it mean fewer`
  constructor(folder: string) {
    super('storage', '')
    this.message = `Cannot look for models: ${folder} ${this.why}`
  }
}

/** Say of what was rejected why, and how much more there is than is told. */
export function tellRejected(
  rejected: Rejected[],
  nameOf: (path: string) => string = path => path,
): string[] {
  const told = rejected.slice(0, MOST_TOLD).map(({ path, reason }) => `${nameOf(path)} ${reason}`)
  const more = rejected.length - told.length
  return more > 0 ? [...told, `and ${more} more`] : told
}

/** A glob names a folder, and may mean what is in it. */
function withRemedy(folder: string, { path, reason }: Rejected): Rejected {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) return { path, reason }
  return {
    path,
    reason: `${reason}; if what is in it is meant, name "${relative(folder, path)}/*" in models`,
  }
}

/**
 * Judge files by name; what is no model is among the rejected, with the reason.
 *
 * @throws the reason of `signal`
 */
export async function judgeAll(folder: string, names: string[], signal?: AbortSignal): Promise<Findings> {
  const findings: Findings = { valid: [], rejected: [] }
  const slice = new Slice()
  for (const name of names) {
    await slice.giveWay(signal)
    try {
      findings.valid.push(await judgeModel(folder, name, signal))
    } catch (error) {
      findings.rejected.push({ path: join(folder, name), reason: reasonOf(error) })
    }
  }
  return findings
}

/**
 * List what globs match in a folder, models or not, but for what is in folders of our own. A folder in which they match
 * something is only the way to that, and an empty one below another has nothing to miss: `x/**` means the files.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed, or has too many of them
 */
export async function listNames(folder: string, globs: string[]): Promise<string[]> {
  try {
    // Treat a missing folder as empty, as globby does; any other reason for not seeing it is an error.
    if (!folderExists(folder)) return []
    const { globby } = await import('globby')
    // A folder is told to be one, and no model, however it is named.
    const named = globs.map(glob => glob.replace(/\/+$/, ''))
    const names = await globby(named, {
      cwd: folder,
      dot: true,
      expandDirectories: false,
      followSymbolicLinks: false,
      // List links, FIFOs and folders with a model's name too: they must be refused, not overlooked.
      onlyFiles: false,
      markDirectories: true,
      ignore: [WORK, TMP, CACHE, HOME, GENERATIONS, CANDIDATE].map(name => `${name}/**`),
      fs: { readdir: await readerOf(folder, named) },
    })
    return withoutWays(folder, names).filter(isPublishable).sort()
  } catch (cause) {
    if (cause instanceof TrainerError) throw cause
    throw new TrainerError('storage', `Cannot look for models in ${folder}: ${messageOf(cause)}`, { cause })
  }
}

/**
 * Leave out the folders on the way to another of the names, and empty ones below others.
 *
 * @param names those of folders end with '/', and come without it
 */
function withoutWays(folder: string, names: string[]): string[] {
  const ways = new Set<string>()
  for (const name of names) {
    // What is above a known one is known.
    for (let way = posix.dirname(name); way !== '.' && !ways.has(way); way = posix.dirname(way)) ways.add(way)
  }
  return names.flatMap(marked => {
    const name = marked.replace(/\/$/, '')
    const isWay = ways.has(name) || (name.includes('/') && isEmpty(join(folder, name)))
    return name !== marked && isWay ? [] : name
  })
}

function isEmpty(folder: string): boolean {
  try {
    const dir = opendirSync(folder)
    try {
      return dir.readSync() === null
    } finally {
      dir.closeSync()
    }
  } catch {
    return false // it is told to be a folder then
  }
}

/** Names that the system is asked for at a time. */
const NAMES_AT_A_TIME = 1024

/**
 * A `readdir` for globby that gives it only what may matter, folders and names that a glob may mean: a folder may have more
 * names than there should be in memory.
 */
async function readerOf(folder: string, globs: string[]): Promise<typeof readdir> {
  const { default: picomatch } = await import('picomatch')
  const last = globs.map(lastPart)
  const mayMatch = last.includes(undefined)
    ? () => true
    : picomatch(last as string[], { dot: true, flags: 's' })
  const isMeant = picomatch(
    globs.filter(glob => !glob.startsWith('!')),
    { dot: true, flags: 's' },
  )
  let count = 0
  const read = async (path: string): Promise<Dirent[]> => {
    const below = path === folder ? '' : `${relative(folder, path)}/`
    const entries: Dirent[] = []
    try {
      for await (const entry of await opendir(path, { bufferSize: NAMES_AT_A_TIME }))
        if (entry.isDirectory() || mayMatch(entry.name)) {
          entries.push(entry)
          if (isMeant(`${below}${entry.name}`) && ++count > MOST_NAMES) throw new TooManyNames(folder)
        }
      return entries
    } catch (error) {
      // Skip folders beyond PATH_MAX: nobody could open a model there, and the error would hide the other models.
      if (isErrno(error, 'ENAMETOOLONG')) return []
      throw error
    }
  }
  return ((path: string, _options: unknown, done: (...result: unknown[]) => void) =>
    void read(path).then(
      entries => done(null, entries),
      error => done(error),
    )) as typeof readdir
}

/** The part of a glob for the last name of a path; undefined if it cannot be told from the part for folders. */
function lastPart(glob: string): string | undefined {
  const start = glob.lastIndexOf('/') + 1
  const last = glob.slice(start)
  const isApart =
    !/[{}()[\]\\]/.test(glob.slice(0, start)) && last !== '' && last !== '**' && !glob.startsWith('!')
  return isApart ? last : undefined
}
