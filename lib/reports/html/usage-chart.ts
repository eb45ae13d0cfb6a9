import { areaY, axisY, dot, gridY, lineY, type Markish, rect, ruleY, text } from '@observablehq/plot'
import type { JobName } from '../../quotas.ts'
import { count, formatBytes, formatSeconds, MIB } from '../../text.ts'
import { type RunHistory, type Trained, trainingsOf } from '../history.ts'
import type { JobHistory } from '../job-history.ts'
import { drawChart, widthOf } from './chart.ts'
import type { Html } from './html.ts'
import { formatTime } from './words.ts'

/** The most trainings of a job that its chart has room for. */
export const MAX_STRIPS = 10

const HEIGHT_PX = 220
const MARGIN_PX = { top: 40, right: 1, bottom: 38 }
const MIN_LEFT_PX = 64
const GAP_PX = 4
/** The least width of a strip; its time makes it wider. */
const MIN_STRIP_PX = 16
const CAPTION_GAP_PX = 12
const FONT_PX = 11
/** The rows of strokes for deletions and pauses, above the frame. */
const ROWS_PX = { pruned: -30, paused: -14 }

/** One training of the job, drawn from `fromPx` to `toPx`. */
type Strip = Trained & { fromPx: number; toPx: number }

/**
 * Draw the usage of a job's folder over time against its quota: a strip for each of the last trainings, the latest at
 * the right, and above it a stroke for each pruned file and for each pause.
 */
export function drawUsage(job: JobName, runs: RunHistory[]): Html {
  const trainings = trainingsOf(runs)
    .filter(trained => trained.job.job === job)
    .slice(-MAX_STRIPS)
  const topBytes = Math.max(MIB, ...trainings.map(({ job }) => Math.max(job.quotaBytes ?? 0, job.peakBytes)))

  const topMib = (topBytes / MIB) * 1.1
  const leftPx = Math.max(MIN_LEFT_PX, widthOf(mib(Math.ceil(topMib)), FONT_PX) + 8)

  return drawChart(width => {
    const innerPx = width - leftPx - MARGIN_PX.right
    const strips = layOut(trainings, innerPx)
    const samples = strips.flatMap(strip =>
      strip.job.samples.map(({ atMs, usedBytes }) => ({
        run: strip.run.run,
        x: Math.round(10 * placeOf(strip, atMs)) / 10,
        y: usedBytes / MIB,
      })),
    )
    return {
      ariaLabel: `Disk usage of ${job} over time, against its quota`,
      height: HEIGHT_PX,
      marginTop: MARGIN_PX.top,
      marginRight: MARGIN_PX.right,
      marginBottom: MARGIN_PX.bottom,
      marginLeft: leftPx,
      x: { axis: null, domain: [0, innerPx] },
      y: { domain: [0, topMib] },
      marks: [
        rect(strips, { x1: 'fromPx', x2: 'toPx', fill: 'var(--panel)', title: tooltipOf }),
        gridY({ stroke: 'var(--grid)', strokeOpacity: 1, ticks: 4 }),
        axisY({
          ticks: 4,
          tickSize: 0,
          label: null,
          fill: 'var(--muted)',
          fontSize: FONT_PX,
          tickFormat: mib,
        }),
        areaY(samples, {
          x: 'x',
          y1: 0,
          y2: 'y',
          z: 'run',
          fill: `var(--${job})`,
          fillOpacity: 0.2,
          pointerEvents: 'none',
        }),
        lineY(samples, {
          x: 'x',
          y: 'y',
          z: 'run',
          stroke: `var(--${job})`,
          strokeWidth: 1.5,
          pointerEvents: 'none',
        }),
        ...quotaMarks(strips),
        ...strokeMarks('pruned', strips, ({ prunes }) => prunes.atMs),
        ...strokeMarks('paused', strips, ({ freezes }) => freezes.atMs),
        ...captionMarks(strips, innerPx),
      ],
    }
  })
}

function layOut(trainings: Trained[], widthPx: number): Strip[] {
  const shareablePx = widthPx - trainings.length * (MIN_STRIP_PX + GAP_PX) + GAP_PX
  const durationOf = ({ job }: Trained) => job.endMs - job.startMs
  const totalMs = trainings.reduce((sum, trained) => sum + durationOf(trained), 0) || 1
  let fromPx = 0
  return trainings.map(trained => {
    const toPx = fromPx + MIN_STRIP_PX + (shareablePx * durationOf(trained)) / totalMs
    const strip = { ...trained, fromPx, toPx }
    fromPx = toPx + GAP_PX
    return strip
  })
}

function placeOf({ job, fromPx, toPx }: Strip, atMs: number): number {
  return fromPx + ((toPx - fromPx) * (atMs - job.startMs)) / (job.endMs - job.startMs || 1)
}

function quotaMarks(strips: Strip[]): Markish[] {
  const limited = strips.filter(({ job }) => job.quotaBytes !== undefined)
  const limitOf = ({ job }: Strip) => job.quotaBytes! / MIB
  return [
    ruleY(limited, { x1: 'fromPx', x2: 'toPx', y: limitOf, stroke: 'var(--text)', className: 'quota' }),
    text(limited.slice(-1), {
      x: 'toPx',
      y: limitOf,
      dx: -4,
      dy: -8,
      textAnchor: 'end',
      text: ({ job }) => `quota ${formatBytes(job.quotaBytes!)}`,
      fill: 'var(--text)',
      fontSize: FONT_PX,
      fontWeight: 600,
    }),
  ]
}

function strokeMarks(
  label: keyof typeof ROWS_PX,
  strips: Strip[],
  timesOf: (job: JobHistory) => number[],
): Markish[] {
  const places = strips.flatMap(strip => timesOf(strip.job).map(atMs => Math.round(placeOf(strip, atMs))))
  const row = { frameAnchor: 'top', dy: ROWS_PX[label] } as const
  return [
    dot([...new Set(places)], { ...row, className: label, x: x => x, symbol: stroke, fill: 'var(--text)' }),
    text([label], {
      ...row,
      frameAnchor: 'top-left',
      dx: -9,
      textAnchor: 'end',
      lineAnchor: 'middle',
      fill: 'var(--muted)',
      fontSize: FONT_PX,
    }),
  ]
}

const stroke = {
  draw(context: { rect: (x: number, y: number, width: number, height: number) => void }) {
    context.rect(-0.75, -5, 1.5, 10)
  },
}

type Caption = { fromPx: number; lines: string; isAtEnd: boolean }

/** Write date, duration and peak below each strip with room for them, and always below the latest, to its left. */
function captionMarks(strips: Strip[], widthPx: number): Markish[] {
  const captions: Caption[] = []
  for (const { run, job, fromPx } of strips.toReversed()) {
    const lines = [formatTime(run.startedAt), captionOf(job)]
    const captionPx = Math.max(...lines.map(line => widthOf(line, FONT_PX))) + CAPTION_GAP_PX
    const toPx = captions.at(-1)?.fromPx ?? widthPx + CAPTION_GAP_PX
    const isAtEnd = fromPx + captionPx > toPx
    if (isAtEnd && captions.length) continue
    captions.push({ fromPx: isAtEnd ? widthPx - captionPx : fromPx, lines: lines.join('\n'), isAtEnd })
  }
  return (['start', 'end'] as const).map(anchor =>
    text(
      captions.filter(({ isAtEnd }) => isAtEnd === (anchor === 'end')),
      {
        x: anchor === 'end' ? () => widthPx : 'fromPx',
        text: 'lines',
        frameAnchor: 'bottom',
        lineAnchor: 'top',
        dy: 8,
        textAnchor: anchor,
        fill: 'var(--muted)',
        fontSize: FONT_PX,
        lineHeight: 1.3,
      },
    ),
  )
}

function captionOf({ startMs, endMs, peakBytes, quotaBytes }: JobHistory): string {
  const share = quotaBytes ? `, peak ${Math.round((100 * peakBytes) / quotaBytes)} %` : ''
  return `${formatSeconds((endMs - startMs) / 1000)}${share}`
}

function tooltipOf({ run, job }: Strip): string {
  const { peakBytes, prunes, freezes } = job
  return [
    `${formatTime(run.startedAt)}: ${captionOf(job)} (${formatBytes(peakBytes)})`,
    `${count(prunes.count, 'file')} pruned (${formatBytes(prunes.bytes)})`,
    `paused ${count(freezes.count, 'time')} (${formatSeconds(freezes.pausedMs / 1000)})`,
  ].join(', ')
}

function mib(value: number): string {
  return `${value} MiB`
}
