import { axisX, gridX, rect, text } from '@observablehq/plot'
import type { RunHistory } from '../history.ts'
import { formatSeconds } from '../text.ts'
import { drawChart } from './drawing.ts'
import type { Html } from './html.ts'
import { findOverlaps, type Trained, trainingsOf } from './overlap.ts'
import { formatTick, ticksUpTo } from './ticks.ts'
import { formatTime, outcomeOf, resultOf } from './words.ts'

const HEADING_PX = 20
const LANE_PX = 17
const GAP_PX = 16
const BAR_PX = 11
const AXIS_PX = 26
/** Room for the label of a bar that ends at the right edge. */
const LABEL_PX = 132

/**
 * A row a run, the latest first; in it a lane for each training, from the run's start. A lane begins where the one
 * above it ends: a stair, unless two trainings overlapped, and then both are drawn as wrong.
 */
export function drawTimeline(runs: RunHistory[]): Html {
  const overlapping = new Set(findOverlaps(runs).flatMap(pair => pair.map(({ job }) => job)))
  const { headings, lanes, heightPx } = layOut(runs)
  const longestS = Math.max(1, ...runs.map(({ durationMs }) => durationMs / 1000))
  const colorOf = ({ job }: Trained) => (overlapping.has(job) ? 'var(--bad)' : `var(--${job.job})`)
  const startOf = ({ training }: Trained) => training.startMs / 1000
  const endOf = ({ training }: Trained) => training.endMs / 1000

  return drawChart(width => {
    const ticks = ticksUpTo(longestS, (width - LABEL_PX) / 70)
    return {
      ariaLabel: 'Timeline: the trainings of each run, one lane each',
      height: heightPx + AXIS_PX,
      marginTop: AXIS_PX,
      marginBottom: 0,
      marginLeft: 1,
      marginRight: LABEL_PX,
      x: { domain: [0, longestS] },
      y: { axis: null, domain: [0, heightPx], range: [AXIS_PX, heightPx + AXIS_PX] },
      marks: [
        gridX(ticks, { stroke: 'var(--grid)', strokeOpacity: 1 }),
        axisX(ticks, {
          anchor: 'top',
          tickFormat: formatTick,
          tickSize: 0,
          label: null,
          fill: 'var(--muted)',
          textAnchor: 'start',
          fontSize: 11,
        }),
        rect(lanes, {
          className: 'trainings',
          x1: startOf,
          x2: endOf,
          y1: ({ y }) => y - BAR_PX / 2,
          y2: ({ y }) => y + BAR_PX / 2,
          fill: colorOf,
          r: 2,
          title: lane => `${formatTime(lane.run.startedAt)}: ${labelOf(lane)}`,
        }),
        text(lanes, {
          x: endOf,
          y: 'y',
          dx: 6,
          textAnchor: 'start',
          fontSize: 11,
          text: labelOf,
          fill: ({ job }) => (outcomeOf(job).tone === 'bad' ? 'var(--bad)' : 'var(--text)'),
          stroke: 'var(--page)',
        }),
        text(headings, {
          y: 'y',
          frameAnchor: 'left',
          textAnchor: 'start',
          text: ({ run }) =>
            `${formatTime(run.startedAt)} · ${resultOf(run).text}, ${formatSeconds(run.durationMs / 1000)}`,
          fontSize: 12,
          fontWeight: 600,
          fill: ({ run }) => `var(--${resultOf(run).tone === 'good' ? 'text' : resultOf(run).tone})`,
          stroke: 'var(--page)',
          strokeWidth: 5,
        }),
      ],
    }
  })
}

type Lane = Trained & { y: number }

function layOut(runs: RunHistory[]): {
  headings: { run: RunHistory; y: number }[]
  lanes: Lane[]
  heightPx: number
} {
  const headings: { run: RunHistory; y: number }[] = []
  const lanes: Lane[] = []
  let heightPx = 0
  for (const run of runs.toReversed()) {
    headings.push({ run, y: heightPx + HEADING_PX / 2 })
    heightPx += HEADING_PX
    for (const trained of trainingsOf([run])) {
      lanes.push({ ...trained, y: heightPx + LANE_PX / 2 })
      heightPx += LANE_PX
    }
    heightPx += GAP_PX
  }
  return { headings, lanes, heightPx }
}

function labelOf({ job, training }: Trained): string {
  const outcome = outcomeOf(job)
  const seconds = formatSeconds((training.endMs - training.startMs) / 1000)
  return `${job.job} ${seconds}${outcome.tone === 'bad' ? `, ${outcome.text}` : ''}`
}
