import { type PlotOptions, plot } from '@observablehq/plot'
import { DOMImplementation, XMLSerializer } from '@xmldom/xmldom'
import { Html, html } from './html.ts'

/** Widths in pixels at which a chart is drawn. The page shows the widest that fits, and scales no text. */
const widths = [328, 512, 736, 880]

/** The page's rules that choose a width. The narrowest chart is shown however little room there is. */
export const chartRules = widths
  .map((width, index) => {
    const fromPx = index === 0 ? 0 : width
    const toPx = widths[index + 1] ?? Number.MAX_SAFE_INTEGER
    return `@container (width < ${fromPx}px) or (width >= ${toPx}px) { .chart-${width} { display: none; } }\n`
  })
  .join('')

/**
 * Draw a chart for screens of several widths, as inline SVG whose colours are the page's.
 *
 * @param optionsAt describes the chart at a width in pixels; screen readers read its `ariaLabel` in its place
 */
export function drawChart(optionsAt: (width: number) => PlotOptions): Html {
  const svgs = widths.map(
    width => html`<div class="chart-${width}">${draw({ ...optionsAt(width), width })}</div>`,
  )
  return html`<div class="chart">${svgs}</div>`
}

function draw(options: PlotOptions): Html {
  const page = new DOMImplementation().createDocument('http://www.w3.org/1999/xhtml', 'html', null)
  const svg = plot({ ...options, document: page as never })
  svg.setAttribute('role', 'img')
  return new Html(new XMLSerializer().serializeToString(svg as never))
}

const NARROW = /[ ,.:·fijlrt]/g

/**
 * Estimate the pixels that a line of text takes at most, in whichever sans-serif the reader's system has: only the
 * browser knows its fonts, after the charts are drawn. The figures are those of DejaVu and Verdana, the widest common
 * fonts.
 */
export function widthOf(line: string, fontPx: number, isBold = false): number {
  const narrow = line.match(NARROW)?.length ?? 0
  return fontPx * (isBold ? 1.1 : 1) * (0.4 * narrow + 0.67 * (line.length - narrow))
}

const stepsS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800]

/** Choose at most `most` round times in seconds, from 0 up to `endS`. */
export function ticksUpTo(endS: number, most: number): number[] {
  const stepS = stepsS.find(step => endS / step < most) ?? 86_400 * Math.ceil(endS / 86_400 / most)
  return Array.from({ length: Math.floor(endS / stepS) + 1 }, (_, index) => index * stepS)
}

/** Format a round time: `0`, `30 s`, `5 min`, `2 h`. */
export function formatTick(seconds: number): string {
  if (seconds === 0) return '0'
  if (seconds < 60) return `${seconds} s`
  const [amount, unit] = seconds < 3600 ? [seconds / 60, 'min'] : [seconds / 3600, 'h']
  return `${Number(amount.toFixed(1))} ${unit}`
}
