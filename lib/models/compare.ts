import { closeSync } from 'node:fs'
import { openPlain, sha256, statPlain } from '../system/plain-file.ts'
import { ownNames } from './generations.ts'
import type { Manifest, ManifestEntry } from './manifest.ts'

/** How a file on disk relates to a manifest; `touched` means the same content with another time. */
export type Comparison = 'same' | 'touched' | 'differs' | 'unlisted'

/**
 * Compare a file with a manifest: by size and modification time where both agree, else by its SHA-256.
 *
 * @throws {UnusableFile} if it is missing or not a plain file
 */
export async function compareFile(
  folder: string,
  name: string,
  manifest: Manifest | undefined,
): Promise<Comparison> {
  const listed = manifest?.files[name]
  if (!listed) return 'unlisted'
  if (knownEntry(folder, name, manifest)) return 'same'
  const listedBytes = manifest.metadata.sizes[name]
  if (listedBytes !== undefined && listedBytes !== Number(statPlain(folder, name, ownNames(folder)).size))
    return 'differs'
  return (await describeFile(folder, name)).sha256 === listed ? 'touched' : 'differs'
}

/** Return the manifest's entry for a file, if the file's size and modification time agree with it. */
export function knownEntry(
  folder: string,
  name: string,
  manifest: Manifest | undefined,
): ManifestEntry | undefined {
  const sha256 = manifest?.files[name]
  if (!sha256) return undefined
  const { size, mtimeNs } = statPlain(folder, name, ownNames(folder))
  const entry = { sha256, bytes: Number(size), mtimeNs: String(mtimeNs) }
  const { sizes, mtimes_ns } = manifest.metadata
  return sizes[name] === entry.bytes && mtimes_ns[name] === entry.mtimeNs ? entry : undefined
}

/** Describe a file for a manifest. Reads the whole file. */
export async function describeFile(folder: string, name: string): Promise<ManifestEntry> {
  const { fd, stats } = openPlain(folder, name, ownNames(folder))
  try {
    return { sha256: await sha256(fd), bytes: Number(stats.size), mtimeNs: String(stats.mtimeNs) }
  } finally {
    closeSync(fd)
  }
}
