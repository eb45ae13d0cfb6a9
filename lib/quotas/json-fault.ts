import { createRequire } from 'node:module'
import type { JSONVisitor } from 'jsonc-parser'

const require = createRequire(import.meta.url)

/**
 * Where a text is not JSON, and why: `line 3, column 5: comma expected`. Of most faults Node.js tells no line, of some
 * no position at all.
 *
 * @returns undefined if no fault is found
 */
export function describeFault(text: string): string | undefined {
  // A quotas file without a fault goes without the library.
  const { printParseErrorCode, visit } = require('jsonc-parser') as typeof import('jsonc-parser')
  const faults: string[] = []
  const onError: JSONVisitor['onError'] = (code, _offset, _length, line, column) => {
    const words = printParseErrorCode(code)
      .replace(/\B[A-Z]/g, ' $&')
      .toLowerCase()
    faults.push(`line ${line + 1}, column ${column + 1}: ${words}`)
  }
  try {
    visit(text, { onError }, { disallowComments: true })
  } catch (error) {
    // The library calls itself for each level.
    if (!(error instanceof RangeError)) throw error
    faults.push('it is nested too deeply')
  }
  return faults[0]
}
