import { type PlotOptions, plot } from '@observablehq/plot'
import { DOMImplementation, XMLSerializer } from '@xmldom/xmldom'
import { Html, html } from './html.ts'

/** Widths in pixels at which a chart is drawn: the page shows the widest that fits, so that no text is scaled. */
const widths = [328, 512, 736, 880]

/** The page's rules for it; the narrowest chart is shown however little room there is. */
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
 * @param describe what the chart shows at this width in pixels; its `ariaLabel` is read out in its place
 */
export function drawChart(describe: (width: number) => PlotOptions): Html {
  const svgs = widths.map(
    width => html`<div class="chart-${width}">${draw({ ...describe(width), width })}</div>`,
  )
  return html`<div class="chart">${svgs}</div>`
}

function draw(options: PlotOptions): Html {
  const page = new DOMImplementation().createDocument('http://www.w3.org/1999/xhtml', 'html', null)
  const svg = plot({ ...options, document: page as never })
  svg.setAttribute('role', 'img')
  return new Html(new XMLSerializer().serializeToString(svg as never))
}
