import { escapeText } from '../../text.ts'

/** Markup that may be inserted as it is. */
export class Html {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

type Insert = string | number | Html | Insert[]

/**
 * Make markup with inserted values. Text is escaped, whatever its source; markup and lists of it are inserted as they
 * are. Values belong between tags or in quoted attributes.
 *
 * @example html`<td title="${path}">${path}</td>`
 */
export function html(strings: TemplateStringsArray, ...inserts: Insert[]): Html {
  return new Html(String.raw({ raw: strings }, ...inserts.map(render)))
}

function render(insert: Insert): string {
  if (insert instanceof Html) return insert.text
  if (Array.isArray(insert)) return insert.map(render).join('')
  return escapeText(String(insert)).replace(/[&<>"']/g, mark => `&#${mark.charCodeAt(0)};`)
}
