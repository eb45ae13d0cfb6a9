import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Usage } from '../../errors.ts'
import { type JobName, jobNames } from '../../quotas.ts'
import { packageVersion } from '../../settings/options.ts'
import { count, formatBytes } from '../../text.ts'
import { findOverlaps, type RunHistory, type Trained, trainingsOf } from '../history.ts'
import type { JobHistory } from '../job-history.ts'
import { chartRules } from './chart.ts'
import { Html, html } from './html.ts'
import { listDeletions, listRuns } from './tables.ts'
import { drawTimeline } from './timeline.ts'
import { drawUsage, MAX_STRIPS } from './usage-chart.ts'
import { formatTime } from './words.ts'

const MAX_FAULTS = 10

/** The content of a report. */
export type PageContent = { modelsDir: string; runs: RunHistory[]; models: Html; madeAt: Date }

/** Draw one self-contained HTML file: it has no script, font or picture, and forbids loading any. */
export function drawPage({ modelsDir, runs, models, madeAt }: PageContent): string {
  const css = new Html(readFileSync(join(import.meta.dirname, 'page.css'), 'utf8'))
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>RansomEye training report</title>
<style>
${css}${new Html(chartRules)}</style>
</head>
<body>
<header>
<h1>RansomEye training report</h1>
<p class="note">${modelsDir}, ${formatTime(madeAt.getTime())} UTC, version ${packageVersion()}. All times are UTC.</p>
</header>
<main>
${runs.length ? drawHistory(runs) : html`<p class="verdict">No run is recorded in ${modelsDir} yet.</p>`}
<section>
<h2>Models</h2>
<p class="note">What is published now, as the manifests have it.</p>
${models}
</section>
${
  runs.length
    ? html`<section class="deletions">
<h2>Deleted files</h2>
${listDeletions(runs)}
</section>`
    : ''
}
</main>
</body>
</html>
`.text
}

function drawHistory(runs: RunHistory[]): Html {
  const trainings = trainingsOf(runs)
  const trained = jobNames.filter(job => trainings.some(it => it.job.job === job))
  const usage = trained.map(
    job => html`<h3><i class="swatch ${job}"></i>${job} <small class="muted">${guaranteeOf(trainings, job)}</small></h3>
${drawUsage(job, runs)}`,
  )
  return html`${drawVerdict(runs, trainings)}
<section>
<h2>Timeline</h2>
<p class="note">Each run from its start, the latest first; each training on a line of its own, begun where the one above it ends.</p>
${drawTimeline(runs)}
</section>
<section>
<h2>Runs</h2>
${listRuns(runs)}
</section>
<section>
<h2>Disk usage</h2>
<p class="note">Each panel is a training, at most the last ${MAX_STRIPS}, the latest at the right and the longer the wider. A stroke above it is a deleted file or a pause.</p>
${usage.length ? usage : html`<p>Nothing was trained.</p>`}
</section>`
}

function guaranteeOf(trainings: Trained[], name: JobName): string {
  return trainings.findLast(({ job }) => job.job === name)?.job.guarantee ?? ''
}

/** Sum the page up in two sentences. */
function drawVerdict(runs: RunHistory[], trainings: Trained[]): Html {
  const overlaps = findOverlaps(runs)
  const excesses = runs.flatMap(run =>
    run.jobs.flatMap(job => {
      const usage = excessOf(job)
      return usage ? { run, job, usage } : []
    }),
  )
  const nameOf = ({ run, job }: Pick<Trained, 'run' | 'job'>) => `${job.job} (${formatTime(run.startedAt)})`
  const faults = [
    ...overlaps.map(([first, second]) => `${nameOf(second)} began before ${nameOf(first)} had ended.`),
    ...excesses.map(
      it => `${nameOf(it)} used ${formatBytes(it.usage.usedBytes)} of ${formatBytes(it.usage.limitBytes)}.`,
    ),
  ]
  return html`<p class="verdict ${overlaps.length ? 'bad' : 'good'}">${
    overlaps.length
      ? `${count(overlaps.length, 'training')} overlapped another.`
      : 'No two trainings overlapped.'
  }</p>
<p class="verdict ${excesses.length ? 'bad' : 'good'}">${
    excesses.length
      ? `${count(excesses.length, 'job')} seen above a limit.`
      : 'No training was seen above its quota.'
  }</p>
<p class="note">${count(trainings.length, 'training')} in ${count(runs.length, 'run')} since ${formatTime(runs[0]!.startedAt)}. ${faults.slice(0, MAX_FAULTS).join(' ')}</p>`
}

/** The limit that a job exceeded, if any: its quota, or the run's lower limit. */
function excessOf({ excess, peakBytes, quotaBytes }: JobHistory): Usage | undefined {
  if (excess || quotaBytes === undefined || peakBytes <= quotaBytes) return excess
  return { usedBytes: peakBytes, limitBytes: quotaBytes }
}
