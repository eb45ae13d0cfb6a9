/**
 * Run the test files: node --import tsx test/run.ts [part of a file's name …]
 *
 * uvu by itself ends with exit 0 when a hook throws, a file forgets `.run()`, a stray `.only` hides the rest or
 * no file matches. Here the run passes only if every test of every file ran and passed, and every skip is named.
 */
import { pathToFileURL } from 'node:url'
import { parse } from 'uvu/parse'
import { namedSkips } from './skips.ts'

type Outcome = [errors: string | true, passed: number, skipped: number, total: number]
type Group = [name: string, ...runs: (() => Promise<Outcome>)[]]

const shared = globalThis as unknown as { UVU_DEFER: number; UVU_INDEX: number; UVU_QUEUE: Group[] }

process.exitCode = 1 // until proven otherwise: a test that never settles ends the process early
shared.UVU_DEFER = 1
const { exitCode, summary } = await runAll(process.argv.slice(2))
console.log(summary)
process.exitCode = exitCode

async function runAll(wanted: string[]): Promise<{ exitCode: number; summary: string }> {
  const { suites } = await parse(import.meta.dirname, String.raw`\.test\.ts$`)
  const chosen = suites.filter(({ name }) => !wanted.length || wanted.some(part => name.includes(part)))
  let passed = 0
  const faults: string[] = chosen.length ? [] : ['no test file matches']
  let failed = faults.length

  await import('uvu') // makes the queue
  for (const [index, { name, file }] of chosen.entries()) {
    shared.UVU_INDEX = index
    shared.UVU_QUEUE[index] = [name]
    console.log(`\n${name}`)
    const startedMs = performance.now()
    const outcome = await runFile(file, index)
    console.log(`  ${((performance.now() - startedMs) / 1000).toFixed(1)} s`)
    passed += outcome.passed
    failed += outcome.failed
    faults.push(...outcome.faults.map(fault => `${name}: ${fault}`))
  }

  for (const fault of faults) console.error(`FAULT ${fault}`)
  for (const skip of namedSkips) console.log(`SKIPPED ${skip}`)
  if (failed === 0 && passed === 0) failed = 1
  const skips = namedSkips.length ? `, ${namedSkips.length} skipped` : ''
  return { exitCode: failed ? 1 : 0, summary: `\n${passed} passed, ${failed} failed${skips}` }
}

async function runFile(
  file: string,
  index: number,
): Promise<{ passed: number; failed: number; faults: string[] }> {
  const tally = { passed: 0, failed: 0, faults: [] as string[] }
  const fault = (text: string) => {
    tally.faults.push(text)
    tally.failed++
  }
  try {
    const namedBefore = namedSkips.length
    await import(pathToFileURL(file).href)
    const runs = shared.UVU_QUEUE[index]!.slice(1) as (() => Promise<Outcome>)[]
    if (!runs.length) fault('registers no test; is .run() missing?')
    let unnamed = -(namedSkips.length - namedBefore)
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
  return tally
}
