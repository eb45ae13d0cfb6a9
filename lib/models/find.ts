import { readdir } from 'node:fs'
import { join } from 'node:path'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { CACHE, CANDIDATE, GENERATIONS, HOME, TMP, WORK } from '../layout.ts'
import { folderExists, reasonOf } from '../system/plain-file.ts'
import { isPublishable, judgeModel, type Model } from './judge.ts'

export type Findings = { valid: Model[]; rejected: { path: string; reason: string }[] }

/**
 * Find the files in a folder that the job's globs call models, and judge each. `folder` is the job's folder, without
 * its `work/`, or that `work/`, without its temporary files and caches. A missing folder has no models.
 *
 * @param isCheckpoint tells of a name below `folder` whether it is a checkpoint or in one: such a file is no model
 * @throws {TrainerError} `storage` if the folder cannot be listed
 */
export async function findModels(
  folder: string,
  globs: string[],
  isCheckpoint: (name: string) => boolean = () => false,
): Promise<Findings> {
  const names = await listNames(folder, globs)
  return judgeAll(
    folder,
    names.filter(name => !isCheckpoint(name)),
  )
}

/** Judge files by name; what is no model is among the rejected, with the reason. */
export async function judgeAll(folder: string, names: string[]): Promise<Findings> {
  const findings: Findings = { valid: [], rejected: [] }
  for (const name of names) {
    try {
      findings.valid.push(await judgeModel(folder, name))
    } catch (error) {
      findings.rejected.push({ path: join(folder, name), reason: reasonOf(error) })
    }
  }
  return findings
}

/**
 * List what globs match in a folder, models or not, but for what is in folders of our own.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed
 */
export async function listNames(folder: string, globs: string[]): Promise<string[]> {
  try {
    // Treat a missing folder as empty, as globby does; any other reason for not seeing it is an error.
    if (!folderExists(folder)) return []
    const { globby } = await import('globby')
    const names = await globby(globs, {
      cwd: folder,
      dot: true,
      expandDirectories: false,
      followSymbolicLinks: false,
      // List links, FIFOs and folders with a model's name too: they must be refused, not overlooked.
      onlyFiles: false,
      ignore: [WORK, TMP, CACHE, HOME, GENERATIONS, CANDIDATE].map(name => `${name}/**`),
      fs: { readdir: readReachable },
    })
    return names.filter(isPublishable).sort()
  } catch (cause) {
    if (cause instanceof TrainerError) throw cause
    throw new TrainerError('storage', `Cannot look for models in ${folder}: ${messageOf(cause)}`, { cause })
  }
}

/** Skip folders beyond PATH_MAX: nobody could open a model there, and the error would hide the other models. */
const readReachable = ((
  path: string,
  options: { withFileTypes: true },
  done: (...result: unknown[]) => void,
) =>
  readdir(path, options, (error, entries) =>
    isErrno(error, 'ENAMETOOLONG') ? done(null, []) : done(error, entries),
  )) as typeof readdir
