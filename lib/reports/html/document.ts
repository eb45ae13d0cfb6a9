import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageVersion } from '../../settings/options.ts'
import { chartRules } from './chart.ts'
import { Html, html } from './html.ts'
import { formatTime } from './words.ts'

/**
 * One HTML file that needs nothing else: it has no script, font or picture of its own, and forbids any other's.
 *
 * @param subject what it is about, below the title
 */
export function drawDocument(title: string, subject: string, madeAt: Date, body: Html): string {
  const css = new Html(readFileSync(join(import.meta.dirname, 'page.css'), 'utf8'))
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>
${css}${new Html(chartRules)}</style>
</head>
<body>
<header>
<h1>${title}</h1>
<p class="note">${subject}, ${formatTime(madeAt.getTime())} UTC, version ${packageVersion()}. All times are UTC.</p>
</header>
<main>
${body}
</main>
</body>
</html>
`.text
}
