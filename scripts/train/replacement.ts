import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { storageError, syncFolder } from '../../lib/system/durable.ts'

/**
 * Write a file, or replace it, so that its name only ever stands for the whole of it, through a crash or a power cut
 * too: into `<path>.tmp`, fsync, rename, fsync of the folder. After a failure the old file is as it was.
 *
 * @throws {TrainerError} `storage`
 */
export async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.tmp`
  try {
    writeFileSync(temporary, bytes, { flush: true })
    renameSync(temporary, path)
    await syncFolder(dirname(path))
  } catch (error) {
    rmSync(temporary, { force: true })
    throw storageError(`Cannot write ${path}`, error)
  }
}
