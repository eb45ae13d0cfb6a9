/**
 * Run one test file and tell the parent process how it went.
 *
 * uvu by itself ends with exit 0 when a hook throws, a file forgets `.run()` or a stray `.only` hides the rest: here
 * each of these is a fault.
 */
import { pathToFileURL } from 'node:url'
import { moduleOf } from './places.ts'
import { namedSkips } from './skips.ts'

/** How a test file went; a fault is what is wrong with the file rather than with what it tests. */
export type Tally = { passed: number; failed: number; faults: string[]; skips: string[] }

/** What the parent process is told: at the beginning of each test its name, at the end of the file how it went. */
export type Message = { test: string } | Tally

type Outcome = [errors: string | true, passed: number, skipped: number, total: number]
type Group = [name: string, ...runs: (() => Promise<Outcome>)[]]

const name = process.argv[2]!
const tally: Tally = { passed: 0, failed: 0, faults: [], skips: namedSkips }
const fault = (text: string) => tally.faults.push(`${name}: ${text}`)
const group: Group = [name]
Object.assign(globalThis, { UVU_DEFER: 1, UVU_INDEX: 0, UVU_QUEUE: [group] })

const { test } = await import('uvu') // which looks at once who runs it
const tell = (message: Message, then = () => {}) => process.send!(message, then)
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
    if (total === 0 && skipped === 0) fault('is empty')
  }
  if (unnamed !== 0) fault(`${unnamed} tests skipped without a name (a stray .only or .skip)`)
} catch (error) {
  fault(error instanceof Error ? (error.stack ?? error.message) : String(error))
}
tell(tally, () => process.exit()) // whatever a failed test has left open
