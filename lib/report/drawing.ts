import { type PlotOptions, plot } from '@observablehq/plot'
import { DOMImplementation, XMLSerializer } from '@xmldom/xmldom'
import { Html, html } from './html.ts'

/** Widths in pixels at which a chart is drawn: the page shows the one that fits, so that no text is scaled. */
const widths = { wide: 880, narrow: 340 }

/**
 * Draw a chart for a wide and for a narrow screen, as inline SVG whose colours are the page's.
 *
 * @param describe what the chart shows at this width in pixels; its `ariaLabel` is read out in its place
 */
export function drawChart(describe: (width: number) => PlotOptions): Html {
  const svgs = Object.entries(widths).map(([name, width]) => {
    const options = describe(width)
    return html`<div class="${name}">${draw({ ...options, width })}</div>`
  })
  return html`<div class="chart">${svgs}</div>`
}

function draw(options: PlotOptions): Html {
  const page = new DOMImplementation().createDocument('http://www.w3.org/1999/xhtml', 'html', null)
  const svg = plot({ ...options, document: page as never })
  svg.setAttribute('role', 'img')
  return new Html(new XMLSerializer().serializeToString(svg as never))
}
