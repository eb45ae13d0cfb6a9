import { readPlain, reasonOf } from '../system/plain-file.ts'

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
  const file = 'metadata.json'
  const ignored = (fault: string) => `Ignored the ${file} that the training wrote: it ${fault}`
  try {
    const reported: unknown = JSON.parse(readPlain(workDir, file, MAX_BYTES))
    if (isObject(reported) && depthOf(reported) <= MAX_DEPTH) return { reported }
    const fault = isObject(reported) ? `is nested deeper than ${MAX_DEPTH}` : 'is not a JSON object'
    return { reported: {}, warning: ignored(fault) }
  } catch (error) {
    const reason = error instanceof SyntaxError ? `is not JSON (${error.message})` : reasonOf(error)
    return reason === 'is missing' ? { reported: {} } : { reported: {}, warning: ignored(reason) }
  }
}

/** Pick the figures of the reported `performance_metrics`, for events and tables. */
export function metricsOf({ performance_metrics: metrics }: Reported): Record<string, number> {
  if (!isObject(metrics)) return {}
  return Object.fromEntries(
    Object.entries(metrics).filter((entry): entry is [string, number] => typeof entry[1] === 'number'),
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
