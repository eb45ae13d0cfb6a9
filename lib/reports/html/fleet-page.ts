import { jobNames } from '../../quotas.ts'
import type { JobEnd } from '../../run/job-record.ts'
import { count, formatMetrics, formatSeconds } from '../../text.ts'
import {
  formatAge,
  lastTrainingRun,
  type SiteModel,
  type SiteReport,
  standOf,
  untoldEnd,
} from '../site-report.ts'
import { drawDocument } from './document.ts'
import { type Html, html } from './html.ts'
import { drawNodeTimeline, overlapsOnNodes, trainingsByNode } from './node-timeline.ts'
import { table } from './tables.ts'
import { formatTime, type ResultTone, resultOf } from './words.ts'

const SHOWN_METRICS = 2
const MAX_FAULTS = 10

/** One HTML file for all sites of a fleet: who has which models, who failed and why, and what ran where. */
export function drawFleetPage(file: string, sites: SiteReport[], madeAt: Date): string {
  const failed = sites.filter(site => standOf(site) === 'failed')
  const complete = sites.filter(({ models }) => models.length && models.every(({ valid }) => valid))
  const lacking = sites.length - complete.length
  const trainings = trainingsByNode(sites)
  const overlaps = overlapsOnNodes(trainings)
  const faults = overlaps.map(
    ({ site, job, node, startMs }) =>
      `${site}'s ${job} (${formatTime(startMs)}) began on ${node} during another training.`,
  )
  const body = html`<p class="verdict ${failed.length ? 'bad' : 'good'}">${
    failed.length ? `${count(failed.length, 'site')} of ${sites.length} failed.` : 'No site failed.'
  }</p>
<p class="verdict ${lacking ? 'bad' : 'good'}">${
    lacking
      ? `${count(lacking, 'site')} without all ${lacking === 1 ? 'its' : 'their'} models.`
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
<p class="note">What is published now, with its age and its first figures, and how the last run or Slurm job ended.</p>
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
      const untold = untoldEnd(report)
      const result = untold ? resultOfJob(untold) : run ? resultOf(run) : { text: 'never', tone: 'muted' }
      const at = untold?.at ?? run?.startedAt
      const last = lastTrainingRun(report)
      const end = untold ?? last
      const said = fault ?? (end?.exitCode ? end.message : undefined)
      // A job that was never a run has been on no node that is known.
      const ran = untold && run?.slurmJob !== untold.slurmJob ? undefined : run
      const row = html`<tr>
<th scope="row" title="${modelsDir}">${site}</th>
<td class="words ${result.tone}">${result.text}${at ? html` <small class="muted">${formatTime(at)}</small>` : ''}</td>
<td data-label="node">${ran?.host ?? '-'}</td>
<td class="number" data-label="took">${ran ? formatSeconds(ran.durationMs / 1000) : '-'}</td>
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

function resultOfJob({ exitCode }: JobEnd): { text: string; tone: ResultTone } {
  return exitCode === 0 ? { text: 'done', tone: 'good' } : { text: `exit code ${exitCode}`, tone: 'bad' }
}

function drawModel(job: string, model: SiteModel | undefined, now: number): Html {
  if (!model) return html`<td data-label="${job}">-</td>`
  const { valid, reason, trainedAt, metrics } = model
  if (!valid) return html`<td class="bad" data-label="${job}" title="${reason}">not valid</td>`
  const age = trainedAt ? formatAge(trainedAt, now) : 'valid'
  return html`<td class="words" data-label="${job}" title="${reason}">${age} <small class="muted">${formatMetrics(metrics, SHOWN_METRICS)}</small></td>`
}
