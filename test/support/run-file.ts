/**
 * Run the test files that the parent process names, one after another, and tell it how each went.
 *
 * uvu by itself ends with exit 0 when a hook throws, a file forgets `.run()` or a stray `.only` hides the rest: here
 * each of these is a fault.
 */
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { moduleOf } from './places.ts'
import { namedSkips } from './skips.ts'
import { END_OF_FILE, type Message, type Tally } from './test-process.ts'

type Outcome = [errors: string | true, passed: number, skipped: number, total: number]
type Group = [name: string, ...runs: (() => Promise<Outcome>)[]]

/** On every Linux that there is a Node.js for. */
const TICKS_A_SECOND = 100

const queue: Group[] = []
Object.assign(globalThis, { UVU_DEFER: 1, UVU_INDEX: 0, UVU_QUEUE: queue })
const { test } = await import('uvu') // which looks at once who runs it
const shares = await import('./test.ts')

process.on('message', async (name: string) => {
  const tally = await run(name)
  for (const stream of [process.stdout, process.stderr])
    await new Promise(resolve => stream.write(END_OF_FILE, resolve))
  tell(tally)
})
process.on('disconnect', () => process.exit()) // whatever a failed test has left open

async function run(name: string): Promise<Tally> {
  const tally: Tally = { passed: 0, failed: 0, faults: [], skips: [], leftToSweep: 0, failedTests: [] }
  const fault = (text: string) => tally.faults.push(`${name}: ${text}`)
  const group: Group = [name]
  queue[0] = group
  const leftBefore = shares.leftToSweep
  test.before.each(({ __test__ }) => tell({ test: __test__ }))
  try {
    await import(pathToFileURL(moduleOf(`test/${name}`)).href)
    tally.skips = namedSkips.splice(0)
    tally.leftToSweep = shares.leftToSweep - leftBefore
    const mayBeEmpty = tally.leftToSweep > 0 || process.env.RANSOMEYE_ONLY !== undefined
    const runs = group.slice(1) as (() => Promise<Outcome>)[]
    if (!runs.length) fault('registers no test; is .run() missing?')
    let unnamed = -tally.skips.length
    for (const run of runs) {
      const [errors, passed, skipped, total] = await run()
      if (errors !== true) console.error(errors)
      tally.passed += passed
      tally.failed += total - passed
      unnamed += skipped
      if (total === 0 && skipped === 0 && !mayBeEmpty) fault('is empty')
    }
    if (unnamed !== 0) fault(`${unnamed} tests skipped without a name (a stray .only or .skip)`)
  } catch (error) {
    fault(error instanceof Error ? (error.stack ?? error.message) : String(error))
  }
  tally.failedTests = shares.failedTests.splice(0)
  return tally
}

function tell(message: { test: string } | Tally): void {
  process.send!({ ...message, processorSeconds: processorSeconds() } satisfies Message)
}

/** Return the time that this process has used, with those that it has started and seen end. */
function processorSeconds(): number {
  const fields = readFileSync('/proc/self/stat', 'latin1').split(') ')[1]!.split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_A_SECOND
}
