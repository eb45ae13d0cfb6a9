import { type JobName, jobNames } from '../../quotas.ts'
import { count, formatBytes, formatFigure, formatMetrics, formatSeconds } from '../../text.ts'
import type { RunHistory } from '../history.ts'
import type { JobHistory, Refusal } from '../job-history.ts'
import { type Html, html } from './html.ts'
import { formatTime, outcomeOf, resultOf } from './words.ts'

const MAX_DELETIONS = 100

/** List the runs, the latest first: a row with the result of each job, and below it the messages of the run. */
export function listRuns(runs: RunHistory[]): Html {
  return table(
    ['Started', 'Result', '#Took', ...jobNames],
    runs.toReversed().map(run => {
      const result = resultOf(run)
      const refusals = run.jobs.flatMap(({ job, refused }) =>
        refused ? html`<p>${job} was not accepted: ${describeRefusal(refused)}</p>` : [],
      )
      const warnings = run.warnings.map(warning => html`<p class="muted">${warning}</p>`)
      const said = [endOf(run), ...refusals, ...warnings]
      return html`<tr>
<th scope="row">${formatTime(run.startedAt)}</th>
<td class="words ${result.tone}">${result.text}</td>
<td class="number">${formatSeconds(run.durationMs / 1000)}</td>
${jobNames.map(job => drawOutcome(run, job))}
</tr>
<tr class="said"><td class="words" colspan="${3 + jobNames.length}">${said}</td></tr>`
    }),
  )
}

/** Say why a model was not accepted, and which of the figures that were asked for were enough. */
function describeRefusal({ reason, metrics }: Refusal): string {
  const enough = Object.entries(metrics).flatMap(([name, { figure, limit }]) =>
    figure !== null && figure >= limit
      ? `${name} is ${formatFigure(figure)}, at least ${formatFigure(limit)} is asked for`
      : [],
  )
  return enough.length ? `${reason}; enough: ${enough.join(', ')}` : reason
}

/** Draw a job's outcome, with the start of each published file's hash: it traces a model to the run that made it. */
function drawOutcome(run: RunHistory, name: JobName): Html {
  const job = run.jobs.find(it => it.job === name)
  if (!job && !run.asked.includes(name)) return html`<td></td>`
  const { text, tone } = outcomeOf(job, run)
  if (!text) return html`<td></td>`
  const hashes = job?.published.map(
    ({ path, sha256, metrics }) =>
      html`<code title="${path} ${sha256} ${formatMetrics(metrics)}">${sha256.slice(0, 8)}</code>`,
  )
  return html`<td class="${tone}" data-label="${name}">${text}${hashes ?? ''}</td>`
}

function endOf({ message, exitCode, isRunning }: RunHistory): string {
  if (isRunning) return 'It goes on.'
  if (exitCode === undefined) return 'It was killed, lost power or could not record its end on a full disk.'
  return message ?? ''
}

/** List the last deleted files, the latest first, below the sums of all deletions. */
export function listDeletions(runs: RunHistory[]): Html {
  const jobs = runs.flatMap(run => run.jobs.map(job => ({ run, job })))
  const sums = jobNames.flatMap(name => {
    const prunes = jobs.flatMap(({ job }) => (job.job === name && job.prunes.count ? [job.prunes] : []))
    const files = prunes.reduce((sum, { count }) => sum + count, 0)
    const bytes = prunes.reduce((sum, { bytes }) => sum + bytes, 0)
    return files ? [`${name}: ${count(files, 'file')}, ${formatBytes(bytes)}`] : []
  })
  if (!sums.length) return html`<p class="note">Nothing was pruned.</p>`

  const total = jobs.reduce((sum, { job }) => sum + job.prunes.count, 0)
  const latest = jobs
    .toReversed()
    .flatMap(({ run, job }) => job.prunes.last.toReversed().map(prune => ({ run, job, prune })))
    .slice(0, MAX_DELETIONS)
  const rows = latest.map(
    ({ run, job, prune }) => html`<tr>
<th scope="row">${formatTime(Date.parse(run.startedAt) + prune.atMs)}</th>
<td>${job.job}</td>
<td class="words">${pathIn(job, prune.path)}</td>
<td class="number">${formatBytes(prune.bytes)}</td>
<td data-label="changed">${formatTime(prune.mtime)}</td>
<td class="words" data-label="rule">${prune.rule}</td>
<td class="number" data-label="used after">${formatBytes(prune.usedBytes)}</td>
</tr>`,
  )
  return html`<p class="note">${sums.join('; ')}.${rows.length < total ? ` The last ${rows.length} are listed.` : ''}</p>
${table(['Deleted', 'Job', 'File', '#Size', 'Last changed', 'Rule', '#Used after'], rows)}`
}

function pathIn({ dir }: JobHistory, path: string): string {
  return dir !== undefined && path.startsWith(`${dir}/`) ? path.slice(dir.length + 1) : path
}

/**
 * Make a table. Where it does not fit, the page shows it as a list whose cells are named by their `data-label`. A head
 * with `#` heads a column of figures.
 */
export function table(heads: readonly string[], rows: Html[]): Html {
  const cells = heads.map(head =>
    head.startsWith('#')
      ? html`<th scope="col" class="number">${head.slice(1)}</th>`
      : html`<th scope="col">${head}</th>`,
  )
  return html`<div class="scroll" tabindex="0"><table>
<thead><tr>${cells}</tr></thead>
<tbody>${rows}</tbody>
</table></div>`
}
