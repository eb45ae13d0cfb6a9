/**
 * Run the test files, several at a time: node --import tsx test/run.ts [part of a file's path …]
 *
 * The run passes only if every test of every file ran and passed, and every skip is named.
 */
import { fork } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { Tally } from './support/run-file.ts'

/** The files are mostly processes that wait for each other; more at a time would make those late that measure time. */
const AT_A_TIME = Math.min(availableParallelism(), 4)

const wanted = process.argv.slice(2)
const files = readdirSync(import.meta.dirname, { recursive: true, encoding: 'utf8' })
  .filter(name => name.endsWith('.test.ts'))
  .filter(name => !wanted.length || wanted.some(part => name.includes(part)))
const tallies: Tally[] = []

const queue = files.values()
await Promise.all(
  Array.from({ length: AT_A_TIME }, async () => {
    for (const file of queue) tallies.push(await runFile(file))
  }),
)

const passed = tallies.reduce((sum, tally) => sum + tally.passed, 0)
const failed = tallies.reduce((sum, tally) => sum + tally.failed, 0)
const faults = files.length ? tallies.flatMap(tally => tally.faults) : ['no test file matches']
if (!faults.length && !passed && !failed) faults.push('no test ran')
const skips = tallies.flatMap(tally => tally.skips)
for (const fault of faults) console.error(`FAULT ${fault}`)
for (const skip of skips) console.log(`SKIPPED ${skip}`)
const skipped = skips.length ? `, ${skips.length} skipped` : ''
console.log(`\n${passed} passed, ${failed + faults.length} failed${skipped}`)
process.exitCode = failed + faults.length ? 1 : 0

/** Run one file in a process of its own; what it prints is shown whole when it has ended. */
async function runFile(name: string): Promise<Tally> {
  const startedMs = performance.now()
  const child = fork(join(import.meta.dirname, 'support/run-file.ts'), [name], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  let output = ''
  let tally: Tally | undefined
  for (const stream of [child.stdout!, child.stderr!])
    stream.setEncoding('utf8').on('data', text => (output += text))
  child.on('message', message => (tally = message as Tally))
  const [code, signal] = await new Promise<unknown[]>(resolve => child.on('close', (...how) => resolve(how)))
  console.log(`\n${name}\n${output.trim()}\n  ${((performance.now() - startedMs) / 1000).toFixed(1)} s`)
  const fault = `${name} ended before its last test (${signal ?? `exit code ${code}`})`
  return tally ?? { passed: 0, failed: 0, faults: [fault], skips: [] }
}
