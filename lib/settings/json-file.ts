import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { JSONVisitor } from 'jsonc-parser'
import * as v from 'valibot'
import { isErrno, messageOf, TrainerError } from '../errors.ts'

/** A file of settings, for messages. */
export type Subject = {
  /** As in `Cannot read the quotas file`. */
  name: string
  /** The remedy when it cannot be read. */
  remedy: string
  /** Names what a missing key should hold: the validator says only that the object around it is not whole. */
  expected: Record<string, string>
}

/**
 * Read a JSON file and validate it.
 *
 * @throws {TrainerError} `config`: unreadable, not JSON, or a value out of place; every fault has a line of
 * its own that names the key, what it was and what was expected.
 */
export function readJsonFile<const Schema extends v.GenericSchema>(
  file: string,
  schema: Schema,
  subject: Subject,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, parseJson(file, subject))
  if (result.success) return result.output
  const faults = new Set(result.issues.map(issue => `${file}: ${describe(issue, subject.expected)}`))
  throw new TrainerError('config', [...faults].join('\n'))
}

function parseJson(file: string, { name, remedy }: Subject): unknown {
  let content: string
  try {
    // Some editors begin a file with a byte order mark, which RFC 8259 (8.1) lets a reader ignore.
    content = readFileSync(file, 'utf8').replace(/^\ufeff/, '')
  } catch (cause) {
    // The system's message about a folder does not name it.
    const reason = isErrno(cause, 'EISDIR') ? `${file} is a folder` : messageOf(cause)
    throw new TrainerError('config', `Cannot read ${name}: ${reason}; ${remedy}`, { cause })
  }
  try {
    return JSON.parse(content)
  } catch (cause) {
    throw new TrainerError('config', `${file} is not JSON: ${describeFault(content) ?? messageOf(cause)}`, {
      cause,
    })
  }
}

function describe(issue: v.BaseIssue<unknown>, expected: Subject['expected']): string {
  const { input: parent } = issue.path?.at(-1) ?? {}
  // The validator takes a list for an object, and then finds no key in it.
  if (Array.isArray(parent) && issue.type === 'strict_object') {
    return `${keyOf(issue.path?.slice(0, -1))} is ${shown(parent)}, expected an object`
  }
  const key = keyOf(issue.path)
  if (issue.type === 'strict_object' && issue.expected === 'never') {
    return `${key} is not a known key; remove it or mend its spelling`
  }
  if (issue.input !== undefined) return `${key} is ${shown(issue.input)}, expected ${issue.message}`
  return `${key} is missing, expected ${expected[key.split('.').at(-1)!] ?? 'an object'}`
}

function keyOf(path: v.IssuePathItem[] | undefined): string {
  return path?.length ? path.map(({ key }) => String(key)).join('.') : 'the file'
}

function shown(value: unknown): string {
  try {
    const json = JSON.stringify(value)
    return json.length > 60 ? `${json.slice(0, 57)}...` : json
  } catch (error) {
    // JSON.parse reads it without recursion, JSON.stringify does not write it without.
    if (error instanceof RangeError) return 'nested too deeply'
    throw error
  }
}

const require = createRequire(import.meta.url)

/**
 * Say where a text is not JSON, and why: `line 3, column 5: comma expected`. Node.js names no line for most faults, and no
 * position for some.
 *
 * @returns undefined if no fault is found
 */
function describeFault(text: string): string | undefined {
  // Only a faulty file needs the library.
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
    // The library recurses once a level.
    if (!(error instanceof RangeError)) throw error
    faults.push('it is nested too deeply')
  }
  return faults[0]
}
