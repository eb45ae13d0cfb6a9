/** Which jobs have no valid published model? Alone: node --import tsx scripts/day1.ts [core] [dpi] [agent] */
import { recover } from '../lib/models/recovery.ts'
import { checkPublished } from '../lib/models.ts'
import { lookingOptions } from '../lib/run/command-line.ts'
import { perform, type Run, summaryOf } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { makeFolder } from '../lib/system/plain-file.ts'

/**
 * The day-1 check: a job whose published models are missing, empty, truncated or garbage gets its seed training in
 * this run. It is cheap: no model is read whole unless it differs from its manifest. A valid model that did not
 * come from here, an operator's own, is taken into the manifest and kept.
 */
export async function checkDay1({ command, jobs }: Run): Promise<void> {
  for (const job of jobs) {
    const { name, publishedDir, quota, emit } = job
    if (!command.dryRun) {
      makeFolder(publishedDir)
      for (const message of await recover(publishedDir, quota.keepGenerations)) {
        emit({ event: 'warning', job: name, message })
      }
    }
    const check = await checkPublished(publishedDir, quota.models)
    job.check = check
    const { models, missing, reason } = check
    emit({ event: 'day1.check', job: name, models, missing, reason })
    // A training that begins now may replace any of them.
    for (const file of missing ? [] : check.foreign) {
      const message = `${file} is valid but not what was published here; it is kept, as adopted`
      emit({ event: 'warning', job: name, message })
    }
    if (check.adopt.length && !command.dryRun) {
      const { adopt } = await import('../lib/models/adopt.ts')
      await adopt(publishedDir, name, check.adopt, quota.models)
    }
  }
}

if (isEntry(import.meta)) {
  const summary = 'Say which jobs have no valid published model.'
  process.exitCode = await perform({ name: 'scripts/day1.ts', summary, takes: lookingOptions }, async run => {
    await checkDay1(run)
    return summaryOf(run)
  })
}
