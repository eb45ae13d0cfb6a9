import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { findModels, namesOf } from '../models.ts'
import { assertFolder, readPlain, reasonOf, UnusableFile } from '../system/plain-file.ts'
import { describeFile } from './compare.ts'
import { judgeModel } from './judge.ts'
import { contradictionsIn, MANIFEST, MANIFEST_MAX_BYTES, NEXT_MANIFEST, parseManifest } from './manifest.ts'

/** A job's published files compared with its manifest. Paths are relative to the job's folder. */
export type Verification = {
  /** Files with the content that the manifest states; the models among them are also whole in structure. */
  verified: { path: string; bytes: number; sha256: string }[]
  /** The paths of verified files that no training here made. */
  adopted: string[]
  /** Every other file; `reason` is the end of a sentence that begins with the path. */
  differences: { path: string; reason: string }[]
}

const MAX_ROUNDS = 5
const UNLISTED = `is not among the files in ${MANIFEST}`

/**
 * Check every published file of a job: each has the SHA-256 that the manifest states, each model is whole in structure,
 * the manifest lists every model and its external data, and its metadata fits. Reads every file whole.
 *
 * Needs no lock: while a publication goes on, differences are checked again.
 *
 * @throws {TrainerError} `storage` if the folder cannot be listed
 */
export async function verifyPublished(jobDir: string, globs: string[]): Promise<Verification> {
  try {
    if (existsSync(jobDir)) assertFolder(jobDir)
  } catch (error) {
    return { verified: [], adopted: [], differences: [{ path: jobDir, reason: reasonOf(error) }] }
  }
  for (let round = 1; ; round++) {
    const manifest = readText(jobDir)
    const verification = await verifyAgainst(manifest, jobDir, globs)
    if (!verification.differences.length) return verification
    const isUnfinished = existsSync(join(jobDir, NEXT_MANIFEST))
    const isSettled = !isUnfinished && readText(jobDir).text === manifest.text
    if (isSettled || round === MAX_ROUNDS) {
      const reason = 'is left over from a publication that was cut off; the next run finishes it'
      if (isUnfinished) verification.differences.push({ path: NEXT_MANIFEST, reason })
      return verification
    }
    await delay(100)
  }
}

async function verifyAgainst(
  { text, reason }: { text: string; reason: string },
  jobDir: string,
  globs: string[],
): Promise<Verification> {
  const manifest = parseManifest(text)
  const files = new Map(Object.entries(manifest?.files ?? {}))
  const verification: Verification = { verified: [], adopted: [], differences: [] }
  if (!files.size) verification.differences.push({ path: MANIFEST, reason })

  const { valid, rejected } = await findModels(jobDir, globs)
  const found = [...valid, ...rejected].map(({ path }) => relative(jobDir, path))
  const models = new Set([...(manifest?.metadata.models ?? []), ...found])
  const names = new Set([...files.keys(), ...found])
  const needed = new Set<string>()
  for (const name of names) {
    try {
      const content = await checkFile(jobDir, name, files.get(name))
      if (models.has(name)) for (const it of namesOf(jobDir, await judgeModel(jobDir, name))) needed.add(it)
      verification.verified.push({ path: name, ...content })
      if (manifest?.metadata.adopted.includes(name)) verification.adopted.push(name)
    } catch (error) {
      verification.differences.push({ path: name, reason: reasonOf(error) })
    }
  }
  for (const name of needed) {
    if (!names.has(name)) verification.differences.push({ path: name, reason: UNLISTED })
  }
  const bytesByName = new Map(verification.verified.map(({ path, bytes }) => [path, bytes]))
  for (const reason of manifest ? contradictionsIn(manifest, bytesByName) : []) {
    verification.differences.push({ path: MANIFEST, reason })
  }
  return verification
}

async function checkFile(
  jobDir: string,
  name: string,
  listed: string | undefined,
): Promise<{ bytes: number; sha256: string }> {
  if (listed === undefined) throw new UnusableFile(UNLISTED)
  const { bytes, sha256 } = await describeFile(jobDir, name)
  if (sha256 === listed) return { bytes, sha256 }
  throw new UnusableFile(`differs: its SHA-256 is ${sha256}, but ${listed} was published`)
}

/** Read the manifest's text, empty if it cannot be read, and the fault to name if it lists no files. */
function readText(jobDir: string): { text: string; reason: string } {
  try {
    return { text: readPlain(jobDir, MANIFEST, MANIFEST_MAX_BYTES), reason: 'is not a manifest of any files' }
  } catch (error) {
    return { text: '', reason: reasonOf(error) }
  }
}
