import { join } from 'node:path'
import type { JobName } from '../quotas.ts'

// The layout on disk, spelt here alone. All paths are absolute.

/** The names of a job's output folder and of the folders in it that are no output. */
export const WORK = 'work'
export const TMP = 'tmp'
export const CACHE = 'cache'
export const HOME = 'home'
/** The folder beside it for checkpoints that no training is to find. */
export const ASIDE = 'aside'

/** The names of the folder of a job's publications, and of the link to the current one. */
export const GENERATIONS = 'generations'
export const CURRENT = 'current'

/** The generation that is being made, until it gets its number. */
export const NEXT_GENERATION = 'next'

/** The link that is about to become {@link CURRENT}. */
export const NEXT_CURRENT = 'current.next'

/** A hard link that is about to become the name of a published file in the job's folder. */
export const NEXT_FLAT = 'flat.next'

/** The name of the folder of a model that was not accepted. */
export const CANDIDATE = 'candidate'

/** The folders of one job. */
export type JobFolders = {
  /** The job's folder; everything in it is charged to the job's quota. */
  jobDir: string
  /** The training's output folder: checkpoints, models not yet published. */
  workDir: string
  /** The training's temporary files; emptied before and after it. */
  tmpDir: string
  /** The caches of the programs that it uses. They last, until their room is needed. */
  cacheDir: string
  /** Its HOME; lasts as the caches do. */
  homeDir: string
  /** The job's publications, each in a folder called by its number. */
  generationsDir: string
  /** The last model that was not accepted. */
  candidateDir: string
}

/** Lay out the folders of a job in a models folder. */
export function layout(modelsDir: string, job: JobName): JobFolders {
  return foldersIn(join(modelsDir, job))
}

/** Lay out the folders of the job whose own folder is `jobDir`. */
export function foldersIn(jobDir: string): JobFolders {
  const workDir = join(jobDir, WORK)
  const inWork = (name: string) => join(workDir, name)
  return {
    jobDir,
    workDir,
    tmpDir: inWork(TMP),
    cacheDir: inWork(CACHE),
    homeDir: inWork(HOME),
    generationsDir: join(jobDir, GENERATIONS),
    candidateDir: join(jobDir, CANDIDATE),
  }
}

/** Return the folder for the state of runs: lock, journal, metrics, logs, images of volumes. */
export function stateDirOf(modelsDir: string): string {
  return join(modelsDir, '.trainer')
}

/** Return root's own folder of the images of volumes. */
export function volumesDirOf(modelsDir: string): string {
  return join(stateDirOf(modelsDir), 'volumes')
}

/** Return root's own folder of images, and a job's image in it. */
export function imageOf(modelsDir: string, job: JobName): { volumesDir: string; image: string } {
  const volumesDir = volumesDirOf(modelsDir)
  return { volumesDir, image: join(volumesDir, `${job}.img`) }
}

/**
 * The folders of a job that trains on a machine's own disk: one for each models folder, so that the jobs of several sites
 * can use one scratch folder.
 */
export async function scratchLayout(scratch: string, modelsDir: string, job: JobName): Promise<JobFolders> {
  const { createHash } = await import('node:crypto') // takes 10 ms of a boot
  const site = createHash('sha256').update(modelsDir).digest('hex').slice(0, 16)
  return foldersIn(join(scratch, `ransomeye-${site}`, job))
}
