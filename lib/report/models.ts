import { join } from 'node:path'
import { readManifest } from '../manifest.ts'
import { checkPublished } from '../models.ts'
import { type JobName, jobNames, type Quotas } from '../quotas.ts'
import { metricsOf } from '../reported.ts'
import { formatSeconds } from '../text.ts'
import { type Html, html } from './html.ts'
import { formatTime } from './words.ts'

/** More metrics than this are not a summary; the manifest has them all. */
const MAX_METRICS = 24

/**
 * A card a job: is it valid, and what its manifest says of the published files. The check is the cheap one of every
 * boot: no file is read whole unless it was touched.
 *
 * @throws {TrainerError} `storage` if a job's folder cannot be listed
 */
export async function listModels(modelsDir: string, quotas: Quotas): Promise<Html> {
  const cards = await Promise.all(
    jobNames.map(job => drawCard(job, join(modelsDir, job), quotas.jobs[job].models)),
  )
  return html`<div class="cards">${cards}</div>`
}

async function drawCard(job: JobName, jobDir: string, globs: string[]): Promise<Html> {
  const { missing, reason } = await checkPublished(jobDir, globs)
  const manifest = readManifest(jobDir)
  const { trained_at, training_seconds, trained_on, version, performance_metrics } = (manifest?.metadata ??
    {}) as Record<string, unknown>
  const facts = [
    ['trained', typeof trained_at === 'string' ? formatTime(trained_at) : undefined],
    ['took', typeof training_seconds === 'number' ? formatSeconds(training_seconds) : undefined],
    ['data', textOf(trained_on)],
    ['version', version === trained_at ? undefined : textOf(version)],
    ...Object.entries(metricsOf({ performance_metrics }))
      .slice(0, MAX_METRICS)
      .map(([name, value]) => [name, String(Number(value.toPrecision(4)))]),
  ]
  return html`<article>
<h3><i class="swatch ${job}"></i>${job}</h3>
<p class="${missing ? 'bad' : 'good'}">${missing ? 'not valid' : 'valid'}: ${reason}</p>
${Object.entries(manifest?.files ?? {}).map(([name, sha256]) => {
  const bytes = manifest?.metadata.sizes[name]
  return html`<p class="file"><b>${name}</b> ${bytes === undefined ? '' : `${bytes.toLocaleString('en')} bytes`}<code>${sha256}</code></p>`
})}
<dl>${facts.map(([label, value]) => (label && value ? html`<dt>${label}</dt><dd>${value}</dd>` : ''))}</dl>
</article>`
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
