/** Which jobs have no valid published model? Alone: node --import tsx scripts/day1.ts [core] [dpi] [agent] */
import { join } from 'node:path'
import { recover } from '../lib/models/recovery.ts'
import { checkPublished } from '../lib/models.ts'
import { perform, type Run } from '../lib/run.ts'
import { isEntry } from '../lib/settings/script.ts'
import { makeFolder } from '../lib/system/plain-file.ts'

/**
 * The day-1 check: a job whose published models are missing, empty, truncated or garbage gets its seed training in
 * this run. It is cheap: no model is read whole unless it differs from its manifest. A valid model that did not
 * come from here, an operator's own, is taken into the manifest and kept.
 */
export async function checkDay1({ command, journal, modelsDir, published, quotas }: Run): Promise<void> {
  for (const job of command.jobs) {
    const jobDir = join(modelsDir, job)
    if (!command.dryRun) {
      makeFolder(jobDir)
      await recover(jobDir)
    }
    const check = await checkPublished(jobDir, quotas.jobs[job].models)
    published.set(job, check)
    journal.emit({
      event: 'day1.check',
      job,
      models: check.models,
      missing: check.missing,
      reason: check.reason,
    })
    // Of a job that is trained now, nothing is sure to be kept.
    for (const name of check.missing ? [] : check.foreign) {
      const message = `${name} is valid but not what was published here; it is kept, as adopted`
      journal.emit({ event: 'warning', job, message })
    }
    if (check.adopt.length && !command.dryRun) {
      const { adopt } = await import('../lib/models/publish.ts')
      await adopt(jobDir, job, check.adopt, quotas.jobs[job].models)
    }
  }
}

if (isEntry(import.meta)) {
  const summary = 'Say which jobs have no valid published model.'
  process.exitCode = await perform({ name: 'scripts/day1.ts', summary }, checkDay1)
}
