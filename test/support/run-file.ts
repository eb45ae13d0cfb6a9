/**
 * Run one test file and tell the parent process how it went.
 *
 * uvu by itself ends with exit 0 when a hook throws, a file forgets `.run()` or a stray `.only` hides the rest: here
 * each of these is a fault.
 */
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { moduleOf } from './places.ts'
import { namedSkips } from './skips.ts'

/** How a test file went; a fault is what is wrong with the file rather than with what it tests. */
export type Tally = {
  passed: number
  failed: number
  faults: string[]
  skips: string[]
  leftToSweep: number
}

/**
 * What the parent process is told: at the beginning of each test its name, at the end of the file how it went, and each
 * time the seconds of processor that the file has taken so far.
 */
export type Message = ({ test: string } | Tally) & { processorSeconds: number }

type Outcome = [errors: string | true, passed: number, skipped: number, total: number]
type Group = [name: string, ...runs: (() => Promise<Outcome>)[]]

/** On every Linux that there is a Node.js for. */
const TICKS_A_SECOND = 100

const name = process.argv[2]!
const tally: Tally = { passed: 0, failed: 0, faults: [], skips: namedSkips, leftToSweep: 0 }
const fault = (text: string) => tally.faults.push(`${name}: ${text}`)
const group: Group = [name]
Object.assign(globalThis, { UVU_DEFER: 1, UVU_INDEX: 0, UVU_QUEUE: [group] })

const { test } = await import('uvu') // which looks at once who runs it
const shares = await import('./test.ts')
const tell = (message: { test: string } | Tally, then = () => {}) =>
  process.send!({ ...message, processorSeconds: processorSeconds() } satisfies Message, then)
test.before.each(({ __test__ }) => void tell({ test: __test__ }))

try {
  await import(pathToFileURL(moduleOf(`test/${name}`)).href)
  const runs = group.slice(1) as (() => Promise<Outcome>)[]
  if (!runs.length) fault('registers no test; is .run() missing?')
  let unnamed = -namedSkips.length
  for (const run of runs) {
    const [errors, passed, skipped, total] = await run()
    if (errors !== true) console.error(errors)
    tally.passed += passed
    tally.failed += total - passed
    unnamed += skipped
    if (total === 0 && skipped === 0 && !shares.leftToSweep) fault('is empty')
  }
  tally.leftToSweep = shares.leftToSweep
  if (unnamed !== 0) fault(`${unnamed} tests skipped without a name (a stray .only or .skip)`)
} catch (error) {
  fault(error instanceof Error ? (error.stack ?? error.message) : String(error))
}
tell(tally, () => process.exit()) // whatever a failed test has left open

/** What this process has used, and what those that it has started and seen end. */
function processorSeconds(): number {
  const fields = readFileSync('/proc/self/stat', 'latin1').split(') ')[1]!.split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_A_SECOND
}
