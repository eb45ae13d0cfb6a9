import { axisX, gridX, rect, text } from '@observablehq/plot'
import { formatSeconds } from '../../text.ts'
import { findOverlaps, type RunHistory, type Trained, trainingsOf } from '../history.ts'
import { drawChart, formatTick, ticksUpTo, widthOf } from './chart.ts'
import type { Html } from './html.ts'
import { formatTime, outcomeOf, resultOf } from './words.ts'

const HEADING_PX = 20
const LANE_PX = 17
const GAP_PX = 16
const BAR_PX = 11
const HEADING_FONT_PX = 12
const LABEL_FONT_PX = 11
const AXIS_PX = 26
const LEFT_PX = 1
/** Height of a heading's second line. */
const LINE_PX = 16
const LABEL_GAP_PX = 6
/** The least margin at the right: room for a tick's label. */
const MIN_MARGIN_PX = 56

/**
 * Draw a row a run, the latest first, with a lane for each training, from the run's start. A lane begins where the one
 * above it ends: a stair. Two trainings that overlapped are both drawn as wrong.
 */
export function drawTimeline(runs: RunHistory[]): Html {
  const overlapping = new Set(findOverlaps(runs).flatMap(pair => pair.map(({ job }) => job)))
  const longestS = Math.max(1, ...runs.map(({ durationMs }) => durationMs / 1000))
  const colorOf = ({ job }: Trained) => (overlapping.has(job) ? 'var(--bad)' : `var(--${job.job})`)
  const startOf = ({ training }: Trained) => training.startMs / 1000
  const endOf = ({ training }: Trained) => training.endMs / 1000

  return drawChart(width => {
    const { headings, lanes, heightPx } = layOut(runs, width)
    const marginRight = marginFor(lanes, longestS, width)
    const ticks = ticksUpTo(longestS, (width - marginRight) / 70)
    return {
      ariaLabel: 'Timeline: the trainings of each run, one lane each',
      height: heightPx + AXIS_PX,
      marginTop: AXIS_PX,
      marginBottom: 0,
      marginLeft: LEFT_PX,
      marginRight,
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
          dx: LABEL_GAP_PX,
          textAnchor: 'start',
          fontSize: LABEL_FONT_PX,
          text: labelOf,
          fill: ({ job, run }) => (outcomeOf(job, run).tone === 'bad' ? 'var(--bad)' : 'var(--text)'),
          stroke: 'var(--page)',
        }),
        text(headings, {
          y: 'y',
          frameAnchor: 'left',
          textAnchor: 'start',
          text: 'lines',
          fontSize: HEADING_FONT_PX,
          lineHeight: LINE_PX / HEADING_FONT_PX,
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

type Heading = { run: RunHistory; lines: string; y: number }

function layOut(
  runs: RunHistory[],
  widthPx: number,
): {
  headings: Heading[]
  lanes: Lane[]
  heightPx: number
} {
  const headings: Heading[] = []
  const lanes: Lane[] = []
  let heightPx = 0
  for (const run of runs.toReversed()) {
    const parts = [
      formatTime(run.startedAt),
      `${resultOf(run).text}, ${formatSeconds(run.durationMs / 1000)}`,
    ]
    const isShort = widthOf(parts.join(' · '), HEADING_FONT_PX, true) < widthPx
    const headingPx = HEADING_PX + (isShort ? 0 : LINE_PX)
    headings.push({ run, lines: parts.join(isShort ? ' · ' : '\n'), y: heightPx + headingPx / 2 })
    heightPx += headingPx
    for (const trained of trainingsOf([run])) {
      lanes.push({ ...trained, y: heightPx + LANE_PX / 2 })
      heightPx += LANE_PX
    }
    heightPx += GAP_PX
  }
  return { headings, lanes, heightPx }
}

/** Compute the least margin at the right that leaves room for each lane's label after its bar. */
function marginFor(lanes: Lane[], longestS: number, widthPx: number): number {
  const margins = lanes.map(lane => {
    const roomPx = widthPx - LEFT_PX - LABEL_GAP_PX - widthOf(labelOf(lane), LABEL_FONT_PX)
    return widthPx - LEFT_PX - (roomPx * longestS * 1000) / (lane.training.endMs || 1)
  })
  return Math.max(MIN_MARGIN_PX, ...margins)
}

function labelOf({ run, job, training }: Trained): string {
  const { text } = outcomeOf(job, run)
  const seconds = formatSeconds((training.endMs - training.startMs) / 1000)
  return `${job.job} ${seconds}${text === 'done' ? '' : `, ${text}`}`
}
