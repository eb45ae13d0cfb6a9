import { axisX, axisY, gridX, rect } from '@observablehq/plot'
import type { JobName } from '../../quotas.ts'
import { formatSeconds } from '../../text.ts'
import { trainingsOf } from '../history.ts'
import type { SiteReport } from '../site-report.ts'
import { drawChart, formatTick, ticksUpTo, widthOf } from './chart.ts'
import type { Html } from './html.ts'

const LANE_PX = 22
const BAR_PX = 12
const AXIS_PX = 26
const FONT_PX = 11

/** One training, on the clock of its node; times in milliseconds. */
export type NodeTraining = { site: string; job: JobName; node: string; startMs: number; endMs: number }

/** Every training of the sites' runs, by node and time. */
export function trainingsByNode(sites: SiteReport[]): NodeTraining[] {
  return sites
    .flatMap(({ site, runs }) =>
      trainingsOf(runs).map(({ run, job, training }) => {
        const beganMs = Date.parse(run.startedAt)
        const [startMs, endMs] = [beganMs + training.startMs, beganMs + training.endMs]
        return { site, job: job.job, node: run.host ?? 'unknown', startMs, endMs }
      }),
    )
    .sort((a, b) => (a.node === b.node ? a.startMs - b.startMs : a.node < b.node ? -1 : 1))
}

/** Trainings that began on a node before another there had ended. */
export function overlapsOnNodes(trainings: NodeTraining[]): NodeTraining[] {
  const ends = new Map<string, number>()
  return trainings.filter(({ node, startMs, endMs }) => {
    const lastEndMs = ends.get(node) ?? Number.NEGATIVE_INFINITY
    ends.set(node, Math.max(lastEndMs, endMs))
    return startMs < lastEndMs
  })
}

/** A lane a node, in which one training follows the other; one that overlaps another is drawn as wrong. */
export function drawNodeTimeline(trainings: NodeTraining[]): Html {
  const nodes = [...new Set(trainings.map(({ node }) => node))]
  const wrong = new Set(overlapsOnNodes(trainings))
  const beginMs = Math.min(...trainings.map(({ startMs }) => startMs))
  const lengthS = Math.max(1, ...trainings.map(({ endMs }) => (endMs - beginMs) / 1000))
  const marginLeft = 8 + Math.max(...nodes.map(node => widthOf(node, FONT_PX)))
  const laneOf = ({ node }: NodeTraining) => nodes.indexOf(node) + 0.5
  const half = BAR_PX / LANE_PX / 2
  return drawChart(width => {
    const ticks = ticksUpTo(lengthS, (width - marginLeft) / 70)
    return {
      ariaLabel: 'Timeline: the trainings of each node, one lane each',
      height: nodes.length * LANE_PX + AXIS_PX,
      marginTop: AXIS_PX,
      marginBottom: 0,
      marginLeft,
      marginRight: 24,
      x: { domain: [0, lengthS] },
      y: { domain: [0, nodes.length], range: [AXIS_PX, nodes.length * LANE_PX + AXIS_PX] },
      marks: [
        gridX(ticks, { stroke: 'var(--grid)', strokeOpacity: 1 }),
        axisX(ticks, {
          anchor: 'top',
          tickFormat: formatTick,
          tickSize: 0,
          label: null,
          fill: 'var(--muted)',
        }),
        axisY(
          nodes.map((_, index) => index + 0.5),
          {
            tickFormat: (_: number, index: number) => nodes[index]!,
            tickSize: 0,
            label: null,
            fill: 'var(--text)',
            fontSize: FONT_PX,
          },
        ),
        rect(trainings, {
          className: 'trainings',
          x1: ({ startMs }: NodeTraining) => (startMs - beginMs) / 1000,
          x2: ({ endMs }: NodeTraining) => (endMs - beginMs) / 1000,
          y1: (it: NodeTraining) => laneOf(it) - half,
          y2: (it: NodeTraining) => laneOf(it) + half,
          fill: (it: NodeTraining) => (wrong.has(it) ? 'var(--bad)' : `var(--${it.job})`),
          title: ({ site, job, startMs, endMs }: NodeTraining) =>
            `${site}: ${job} ${formatSeconds((endMs - startMs) / 1000)}`,
        }),
      ],
    }
  })
}
