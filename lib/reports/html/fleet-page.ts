import { jobNames } from '../../quotas.ts'
import { count, formatMetrics, formatSeconds } from '../../text.ts'
import { formatAge, lastTrainingRun, type SiteModel, type SiteReport } from '../site-report.ts'
import { drawDocument } from './document.ts'
import { type Html, html } from './html.ts'
import { drawNodeTimeline, overlapsOnNodes, trainingsByNode } from './node-timeline.ts'
import { table } from './tables.ts'
import { formatTime, resultOf } from './words.ts'

const SHOWN_METRICS = 2
const MAX_FAULTS = 10

/** One HTML file for all sites of a fleet: who has which models, who failed and why, and what ran where. */
export function drawFleetPage(file: string, sites: SiteReport[], madeAt: Date): string {
  const failed = sites.filter(
    site => (lastTrainingRun(site)?.exitCode ?? 0) !== 0 || site.fault !== undefined,
  )
  const complete = sites.filter(({ models }) => models.length && models.every(({ valid }) => valid))
  const trainings = trainingsByNode(sites)
  const overlaps = overlapsOnNodes(trainings)
  const faults = overlaps.map(
    ({ site, job, node, startMs }) =>
      `${site}'s ${job} (${formatTime(startMs)}) began on ${node} during another training.`,
  )
  const body = html`<p class="verdict ${failed.length ? 'bad' : 'good'}">${
    failed.length ? `${count(failed.length, 'site')} of ${sites.length} failed.` : 'No site failed.'
  }</p>
<p class="verdict ${complete.length < sites.length ? 'bad' : 'good'}">${
    complete.length < sites.length
      ? `${count(sites.length - complete.length, 'site')} without all its models.`
      : 'Every site has all its models.'
  }</p>
<p class="verdict ${overlaps.length ? 'bad' : 'good'}">${
    overlaps.length
      ? `${count(overlaps.length, 'training')} overlapped another on its node.`
      : 'No two trainings on one node at once.'
  }</p>
<p class="note">${faults.slice(0, MAX_FAULTS).join(' ')}</p>
<section>
<h2>Sites</h2>
<p class="note">What is published now, with its age and its first figures, and how the last run ended.</p>
${listSites(sites, madeAt.getTime())}
</section>
${
  trainings.length
    ? html`<section>
<h2>Timeline</h2>
<p class="note">A lane a node, from ${formatTime(Math.min(...trainings.map(({ startMs }) => startMs)))} on. Each box is a training: <i class="swatch core"></i>core, <i class="swatch dpi"></i>dpi, <i class="swatch agent"></i>agent.</p>
${drawNodeTimeline(trainings)}
</section>`
    : ''
}`
  return drawDocument('RansomEye fleet report', `${file}, ${count(sites.length, 'site')}`, madeAt, body)
}

function listSites(sites: SiteReport[], now: number): Html {
  return table(
    ['Site', 'Last run', 'Node', '#Took', ...jobNames],
    sites.map(report => {
      const { site, modelsDir, models, fault } = report
      const run = report.runs.at(-1)
      const result = run ? resultOf(run) : { text: 'never', tone: 'muted' }
      const last = lastTrainingRun(report)
      const said = fault ?? (last?.exitCode ? last.message : undefined)
      const row = html`<tr>
<th scope="row" title="${modelsDir}">${site}</th>
<td class="words ${result.tone}">${result.text}${run ? html` <small class="muted">${formatTime(run.startedAt)}</small>` : ''}</td>
<td data-label="node">${run?.host ?? '-'}</td>
<td class="number" data-label="took">${run ? formatSeconds(run.durationMs / 1000) : '-'}</td>
${jobNames.map(job =>
  drawModel(
    job,
    models.find(it => it.job === job),
    now,
  ),
)}
</tr>`
      return said
        ? html`${row}
<tr class="said"><td class="words bad" colspan="${4 + jobNames.length}">${said}</td></tr>`
        : row
    }),
  )
}

function drawModel(job: string, model: SiteModel | undefined, now: number): Html {
  if (!model) return html`<td data-label="${job}">-</td>`
  const { valid, reason, trainedAt, metrics } = model
  if (!valid) return html`<td class="bad" data-label="${job}" title="${reason}">not valid</td>`
  const age = trainedAt ? formatAge(trainedAt, now) : 'valid'
  return html`<td class="words" data-label="${job}" title="${reason}">${age} <small class="muted">${formatMetrics(metrics, SHOWN_METRICS)}</small></td>`
}
