import { lstatSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, TrainerError } from '../errors.ts'
import { NEXT_MANIFEST } from '../models/manifest.ts'
import { assertOwnLock } from '../run/lost-lock.ts'
import type { Job } from '../run.ts'
import { NEXT_CURRENT, stateDirOf } from '../settings/layout.ts'
import { mendWork } from '../storage/mend-folder.ts'
import { assertSameFolder } from './job.ts'

/**
 * Remove what must not outlive a program of the job's own: its temporary files, and whatever a hostile one planted outside
 * a sandbox. None of its processes is left, so nothing can change between check and removal.
 */
export async function clearUp(job: Job, folderId: string | undefined): Promise<void> {
  const { name, jobDir: dir, workDir, emit } = job
  try {
    assertOwnLock(stateDirOf(job.run.modelsDir))
    assertSameFolder(job, folderId)
    // The next start would go on with them as if they were a publication of ours.
    for (const name of [NEXT_MANIFEST, NEXT_CURRENT])
      rmSync(join(dir, name), { recursive: true, force: true })
    if (lstatSync(workDir, { throwIfNoEntry: false })?.isDirectory() === false) {
      rmSync(workDir)
      throw new TrainerError(
        'storage',
        `${workDir} was no folder any more after its end; what was there is deleted`,
      )
    }
    await mendWork(workDir)
  } catch (error) {
    emit({ event: 'warning', job: name, message: messageOf(error) })
  }
}
