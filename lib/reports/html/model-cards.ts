import { join } from 'node:path'
import { publishedDirOf } from '../../models/generations.ts'
import { readManifest } from '../../models/manifest.ts'
import { metricsOf } from '../../models/trainer-metadata.ts'
import { checkPublished } from '../../models.ts'
import { type JobName, jobNames, type Quotas } from '../../quotas.ts'
import { formatSeconds } from '../../text.ts'
import { type Html, html } from './html.ts'
import { formatTime } from './words.ts'

/** The metrics shown at once: trainers report those that matter first. The rest is folded away. */
const SHOWN_METRICS = 8
const MAX_METRICS = 200
const MAX_ORIGIN = 400

/**
 * Draw a card a job: is it valid, and which files does its manifest list? The check is the cheap one of every boot: no
 * file is read whole unless it was touched.
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
  const manifest = readManifest(publishedDirOf(jobDir))
  const metadata: Record<string, unknown> = manifest?.metadata ?? {}
  const metrics = Object.entries(metricsOf(metadata)).slice(0, MAX_METRICS)
  const files = Object.entries(manifest?.files ?? {}).map(([name, sha256]) => {
    const bytes = manifest?.metadata.sizes[name]
    return html`<p><b>${name}</b>${bytes === undefined ? '' : ` ${bytes.toLocaleString('en')} bytes`}</p>
<code>${sha256}</code>`
  })
  return html`<article>
<h3><i class="swatch ${job}"></i>${job}</h3>
<p class="${missing ? 'bad' : 'good'}">${missing ? 'not valid' : 'valid'}: ${reason}</p>
${files}
<p class="muted">${originOf(metadata)}</p>
${listMetrics(metrics.slice(0, SHOWN_METRICS))}
${
  metrics.length > SHOWN_METRICS
    ? html`<details><summary>${metrics.length - SHOWN_METRICS} more</summary>${listMetrics(metrics.slice(SHOWN_METRICS))}</details>`
    : ''
}
</article>`
}

function listMetrics(metrics: [name: string, value: number][]): Html {
  return html`<dl>${metrics.map(
    ([name, value]) => html`<dt>${name.replaceAll('_', ' ')}</dt><dd>${Number(value.toPrecision(4))}</dd>`,
  )}</dl>`
}

/** Tell when the models were trained, in what time, by which version, and on what. */
function originOf({ trained_at, training_seconds, version, trained_on }: Record<string, unknown>): string {
  const parts = [
    typeof trained_at === 'string' && `trained ${formatTime(trained_at)}`,
    typeof training_seconds === 'number' && `in ${formatSeconds(training_seconds)}`,
    typeof version === 'string' && version !== trained_at && `version ${version}`,
    typeof trained_on === 'string' && `on ${trained_on}`,
  ]
  const text = parts.filter(Boolean).join(', ')
  return text.length > MAX_ORIGIN ? `${text.slice(0, MAX_ORIGIN - 1)}…` : text
}
