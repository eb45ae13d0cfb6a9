/**
 * Run the test files, several at a time, and `npm run check` beside them. With parts of their paths, as in
 * node --import tsx test/run.ts guard report/, run those alone, and say what took a second or more.
 *
 * Most run in a copy of the project that is translated to JavaScript. The run passes only if every test of every file
 * ran and passed, and every skip is named. With RANSOMEYE_SWEEP=whole only those tests run that otherwise take a sample of
 * their cases, which then go through all of them, and those that are in the sweep alone, as all of a file NAME.sweep.test.ts
 * are. With RANSOMEYE_BOOT=yes only those of booted/ run, and without it all but those.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { $ } from 'zx/core'
import { bootsMachines, isSweep, loader, moduleOf, root } from './support/places.ts'
import { type Outcome, rounded, secondsSince, TestProcess } from './support/test-process.ts'
import { translateProject } from './support/translate.ts'

/** The files are mostly processes that wait for each other; many more at a time would make those late that measure time. */
const AT_A_TIME = bootsMachines ? 1 : Math.min(availableParallelism() + 2, 6)

/** The files that take longest begin first, so that nothing is waited for alone in the end: kept right by what a run prints. */
const LONGEST_FIRST = [
  'frameworks/huggingface.sweep',
  'frameworks/torchrun.sweep',
  'frameworks/keras.sweep',
  'frameworks/lightning.sweep',
  'frameworks/tensorflow.sweep',
  'fleet/cluster',
  'fleet/scale.sweep',
  'fleet/following',
  'models/publish-faults',
  'models/crash-images',
  'machine/volume-interrupts.sweep',
  'models/rollback-faults',
  'scripts/operation',
  'scripts/tasks',
  'abuse/account',
  'training/guard',
  'machine/boot.sweep',
  'training/checkpoints',
  'training/environment',
  'training/hostile-training',
  'training/process',
  'training/progress',
  'scripts/one-at-a-time',
  'abuse/sandbox',
  'abuse/leftovers',
  'machine/volume-moving.sweep',
  'training/accept',
  'run/metrics',
  'reports/status',
  'reports/report',
  'machine/volume-run',
  'machine/volume-cap',
  'machine/volume-refusals',
  'machine/install',
  'run/lock',
  'run/line-output',
  'models/many-files',
  'models/readers',
  'scripts/bundle',
  'package/bundle.sweep',
  'system/tsx-cache',
  'scripts/kill-sweep',
  'models/without-links',
  'training/scratch',
  'scripts/python-trainer',
].map(name => `${name}.test.ts`)

/** Tests of the project as it stands there, its files, its command line and how it is installed: not translated. */
const AS_IT_STANDS = [
  'architecture',
  'machine/boot.sweep',
  'machine/install',
  'pages',
  'system/tsx-cache',
].map(name => `${name}.test.ts`)

/** The files that boot machines from the project as it stands. */
const BOOTED = 'booted/'

/** The files of which all is in the sweep. */
const SWEPT = '.sweep.test.ts'

const SHOWN = 12

const RUN_FILE = 'test/support/run-file.ts'

// Node.js 20 reads every certificate of this file at each start, which is a third of the start. Only tests that boot machines
// talk to the network.
if (!bootsMachines) delete process.env.NODE_EXTRA_CA_CERTS

const wanted = process.argv.slice(2)
const all = readdirSync(import.meta.dirname, { recursive: true, encoding: 'utf8' })
  .filter(name => name.endsWith('.test.ts'))
  .filter(name => name.startsWith(BOOTED) === bootsMachines)
const matching = all.filter(name => !wanted.length || wanted.some(part => name.includes(part)))
const files = matching
  .filter(name =>
    isSweep
      ? /\b(sampled|inSweep|inTurn)\b/.test(readFileSync(join(import.meta.dirname, name), 'utf8'))
      : !name.endsWith(SWEPT),
  )
  .sort((one, other) => place(one) - place(other))
const outcomes: Outcome[] = []
const running = new Set<TestProcess>()

const startedMs = performance.now()
await using copy = await translateProject()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, async () => {
    for (const testProcess of running) testProcess.kill()
    await copy[Symbol.asyncDispose]()
    process.kill(process.pid, signal)
  })
}
const checked = wanted.length || isSweep || bootsMachines ? undefined : check()
const queue = files.values()
await Promise.all(
  Array.from({ length: AT_A_TIME }, async () => {
    let shared: TestProcess | undefined
    for (const name of queue) {
      if (standsThere(name)) outcomes.push(await runFile(name))
      else {
        if (!shared || shared.isGone) shared = startProcess(name)
        outcomes.push(await runFile(name, shared))
      }
    }
    if (shared) await endProcess(shared)
  }),
)

// Files beside each other share processors and a disk, whose free space some of them watch. In CI a test that failed so is run
// once more, alone, and named: a fault of the program shows there too.
if (process.env.CI)
  for (const [index, { name, tally }] of outcomes.entries()) {
    const { failed, faults, failedTests } = tally
    if (!failed && !faults.length) continue
    const isWhole = faults.length > 0 || failedTests.length !== failed
    const what = isWhole ? 'all of it' : failedTests.map(it => `"${it}"`).join(', ')
    console.log(`AGAIN ${name}: it failed beside others; ${what} is run alone`)
    const testProcess = startProcess(name, isWhole ? {} : { RANSOMEYE_ONLY: JSON.stringify(failedTests) })
    const alone = await runFile(name, testProcess)
    await endProcess(testProcess)
    const { passed } = alone.tally
    if (!isWhole && passed + alone.tally.failed !== failed)
      alone.tally.faults.push(`${name}: not just the ${failed} that failed ran again`)
    const whole = { ...alone.tally, passed: tally.passed + passed, leftToSweep: tally.leftToSweep }
    outcomes[index] = { ...alone, tally: isWhole ? alone.tally : whole }
  }

if (files.length > SHOWN) {
  const processorSeconds = outcomes.reduce((sum, outcome) => sum + outcome.processorSeconds, 0)
  console.log(`\n${secondsSince(startedMs)} s, ${rounded(processorSeconds)} s of processor; the longest:`)
  outcomes.sort((one, other) => other.seconds - one.seconds)
  for (const { name, seconds, costs } of outcomes.slice(0, SHOWN)) {
    const [longest] = costs.sort((one, other) => other.seconds - one.seconds)
    const late = LONGEST_FIRST.includes(name) ? '' : ' (not in LONGEST_FIRST)'
    console.log(`  ${seconds} s ${name}${late}, of which ${longest?.seconds} s ${longest?.test}`)
  }
}
const tallies = outcomes.map(({ tally }) => tally)
const passed = tallies.reduce((sum, tally) => sum + tally.passed, 0)
const failed = tallies.reduce((sum, tally) => sum + tally.failed, 0)
const faults = files.length
  ? tallies.flatMap(tally => tally.faults)
  : [`no test file ${matching.length ? 'is here: npm run test:sweep' : 'matches'}`]
if (!faults.length && !passed && !failed) faults.push('no test ran')
faults.push(...((await checked) ?? []))
for (const name of bootsMachines ? [] : [...LONGEST_FIRST, ...AS_IT_STANDS])
  if (!all.includes(name)) faults.push(`test/run.ts names ${name}, which there is not`)
const skips = tallies.flatMap(tally => tally.skips)
for (const fault of faults) console.error(`FAULT ${fault}`)
for (const skip of skips) console.log(`SKIPPED ${skip}`)
const left = tallies.reduce((sum, tally) => sum + tally.leftToSweep, 0)
const swept = isSweep ? 0 : matching.length - files.length
if (left || swept) console.log(`${left} tests and ${swept} files are in the sweep: npm run test:sweep`)
const skipped = skips.length ? `, ${skips.length} skipped` : ''
console.log(`\n${passed} passed, ${failed + faults.length} failed${skipped}`)
process.exitCode = failed + faults.length ? 1 : 0

function place(name: string): number {
  const index = LONGEST_FIRST.indexOf(name)
  return index < 0 ? LONGEST_FIRST.length : index
}

/** Look meanwhile at what is judged without being run: types, style, dead code, licences. */
async function check(): Promise<string[]> {
  const { ok, stdout, stderr } = await $({ nothrow: true, quiet: true })`npm run --silent check`
  console.log(`\nnpm run check\n${(stdout + stderr).trim()}`)
  return ok ? [] : ['npm run check failed']
}

function startProcess(name: string, env: NodeJS.ProcessEnv = {}): TestProcess {
  const place = standsThere(name)
    ? { program: moduleOf(RUN_FILE), execArgv: loader, dir: root }
    : {
        program: copy.path(RUN_FILE.replace('.ts', '.js')),
        execArgv: ['--enable-source-maps'],
        dir: copy.dir,
      }
  const testProcess = new TestProcess({ ...place, env })
  running.add(testProcess)
  return testProcess
}

function standsThere(name: string): boolean {
  return AS_IT_STANDS.includes(name) || bootsMachines
}

/** Run one file, in a process of its own or in one for many; what it prints is shown whole when it has ended. */
async function runFile(name: string, shared?: TestProcess): Promise<Outcome> {
  const testProcess = shared ?? startProcess(name)
  const outcome = await testProcess.run(name)
  if (!shared) await endProcess(testProcess)
  const { output, costs, seconds, processorSeconds } = outcome
  console.log(`\n${name}\n${output}`)
  for (const cost of costs)
    if (wanted.length && cost.seconds >= 1)
      console.log(`    ${cost.seconds} s, ${cost.processorSeconds} s of processor: ${cost.test}`)
  console.log(`  ${seconds} s, ${processorSeconds} s of processor`)
  return outcome
}

async function endProcess(testProcess: TestProcess): Promise<void> {
  await testProcess.end()
  running.delete(testProcess)
}
