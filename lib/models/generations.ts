import { lstatSync, readdirSync, readlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isErrno } from '../errors.ts'
import { CURRENT, foldersIn, GENERATIONS, NEXT_FLAT, NEXT_GENERATION } from '../settings/layout.ts'
import { storageError } from '../system/durable.ts'
import type { Recognise } from '../system/plain-file.ts'

/** The name of a generation's folder. */
const NUMBER = /^[1-9]\d{0,14}$/

/** A publication of a job: a folder of its own, which never changes once it is current. */
export type Generation = { number: number; dir: string }

/** Lay out a generation of a job. */
export function generationOf(jobDir: string, number: number): Generation {
  return { number, dir: join(foldersIn(jobDir).generationsDir, String(number)) }
}

/** Lay out the folder of the generation that is being made. */
export function nextGenerationDir(jobDir: string): string {
  return join(foldersIn(jobDir).generationsDir, NEXT_GENERATION)
}

/**
 * Find a job's current generation; undefined if nothing is published, or it is published as flat files only.
 *
 * @throws {TrainerError} `storage` if it cannot be told
 */
export function currentGeneration(jobDir: string, link = CURRENT): Generation | undefined {
  return lookInto(jobDir, () => {
    const [folder, digits = '', ...rest] = readLink(join(jobDir, link))?.split('/') ?? []
    if (folder !== GENERATIONS || !NUMBER.test(digits) || rest.length) return undefined
    const generation = generationOf(jobDir, Number(digits))
    return isFolder(foldersIn(jobDir).generationsDir) && isFolder(generation.dir) ? generation : undefined
  })
}

/**
 * Return the folder of what a job has published: its current generation, or without one the job's folder itself.
 *
 * @throws {TrainerError} as {@link currentGeneration}
 */
export function publishedDirOf(jobDir: string): string {
  return currentGeneration(jobDir)?.dir ?? jobDir
}

/**
 * List the generations that are there, oldest first.
 *
 * @throws {TrainerError} `storage` if it cannot be told
 */
export function listGenerations(jobDir: string): Generation[] {
  return lookInto(jobDir, () =>
    namesIn(foldersIn(jobDir).generationsDir)
      .filter(name => NUMBER.test(name))
      .map(name => generationOf(jobDir, Number(name)))
      .filter(({ dir }) => isFolder(dir))
      .sort((a, b) => a.number - b.number),
  )
}

/**
 * List the generations that a job was rolled back from: those after the current one.
 *
 * @throws {TrainerError} as {@link currentGeneration}
 */
export function rolledBackFrom(jobDir: string): Generation[] {
  const current = currentGeneration(jobDir)
  return current ? listGenerations(jobDir).filter(({ number }) => number > current.number) : []
}

/**
 * Count the names of a published file that are ours: its flat name and those in generations, among them one that was not
 * accepted. A file with yet another name can change under it.
 *
 * @param folder the job's folder or one of its generations, in which the files are looked at
 */
export function recogniserFor(folder: string): Recognise {
  return (name, { dev, ino }) => {
    const jobDir = jobDirOf(folder)
    const { generationsDir, candidateDir } = foldersIn(jobDir)
    const folders = [jobDir, candidateDir, ...namesIn(generationsDir).map(it => join(generationsDir, it))]
    // The last is a name for a moment only.
    const paths = [...folders.map(it => join(it, name)), join(jobDir, NEXT_FLAT)]
    return paths.filter(path => {
      const stats = lookAt(path)
      return stats?.ino === ino && stats.dev === dev
    }).length
  }
}

/** Do two paths name the same file? */
export function isSameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map(path => lookAt(path))
  return a !== undefined && b !== undefined && a.ino === b.ino && a.dev === b.dev
}

function lookAt(path: string) {
  try {
    return lstatSync(path, { bigint: true, throwIfNoEntry: false })
  } catch (error) {
    if (isErrno(error, 'ENOTDIR')) return undefined
    throw error
  }
}

/** Look at what is in a job's folder. What the system refuses is somebody's to mend. */
function lookInto<T>(jobDir: string, look: () => T): T {
  try {
    return look()
  } catch (cause) {
    throw storageError(`Cannot look into ${jobDir}`, cause)
  }
}

function jobDirOf(folder: string): string {
  return basename(dirname(folder)) === GENERATIONS ? dirname(dirname(folder)) : folder
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return []
    throw error
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EINVAL', 'ENOTDIR')) return undefined
    throw error
  }
}

function isFolder(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}
