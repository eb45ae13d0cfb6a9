import { createRequire } from 'node:module'

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
  visit(
    text,
    {
      onError: (code, _offset, _length, line, column) => {
        const words = printParseErrorCode(code)
          .replace(/\B[A-Z]/g, ' $&')
          .toLowerCase()
        faults.push(`line ${line + 1}, column ${column + 1}: ${words}`)
      },
    },
    { disallowComments: true },
  )
  return faults[0]
}
