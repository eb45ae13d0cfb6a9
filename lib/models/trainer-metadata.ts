import { readPlain, reasonOf } from '../system/plain-file.ts'

/** The file in which a trainer describes its models. */
export const TRAINER_METADATA = 'metadata.json'

const MAX_BYTES = 64 * 1024
/** Deeper metadata, written indented into a manifest, could grow without bound. */
const MAX_DEPTH = 32

/** A trainer's own description of its models, such as `features`, `trained_on` and `performance_metrics`. */
export type Reported = Record<string, unknown>

/**
 * Read `metadata.json`, a JSON object that a trainer may write beside its models. An unusable one is left out, because
 * the models are good without it; `warning` then says why.
 */
export function readReported(workDir: string): { reported: Reported; warning?: string } {
  const file = TRAINER_METADATA
  const ignored = (fault: string) => `Ignored the ${file} that the training wrote: it ${fault}`
  try {
    const reported: unknown = parse(readPlain(workDir, file, MAX_BYTES))
    if (isObject(reported) && depthOf(reported) <= MAX_DEPTH) return { reported }
    const fault = isObject(reported) ? `is nested deeper than ${MAX_DEPTH}` : 'is not a JSON object'
    return { reported: {}, warning: ignored(fault) }
  } catch (error) {
    const reason = error instanceof SyntaxError ? `is not JSON (${error.message})` : reasonOf(error)
    return reason === 'is missing' ? { reported: {} } : { reported: {}, warning: ignored(reason) }
  }
}

/** Parse JSON, and Python's: it writes what is no number as `NaN`, which counts as not told. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    const without = text.replace(NO_NUMBER, word => (word.startsWith('"') ? word : 'null'))
    if (without === text) throw error
    return JSON.parse(without)
  }
}

/**
 * A string, which stays as it is, or what Python writes for a number that is none. A string that does not end is taken too: else
 * each quote in it would be a beginning of all the rest.
 */
const NO_NUMBER = /"(?:[^"\\]|\\.)*"?|-?\b(?:NaN|Infinity)\b/g

/** Pick the figures of the reported `performance_metrics`, for events and tables. */
export function metricsOf({ performance_metrics: metrics }: Reported): Record<string, number> {
  if (!isObject(metrics)) return {}
  return Object.fromEntries(
    Object.entries(metrics).filter((entry): entry is [string, number] => Number.isFinite(entry[1])),
  )
}

/** Count the levels of nested arrays and objects, one level at a time: recursion would overflow the stack. */
function depthOf(value: unknown): number {
  let depth = 0
  let level = [value]
  while (level.length) {
    level = level.flatMap(it => (typeof it === 'object' && it !== null ? Object.values(it) : []))
    depth++
  }
  return depth
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
