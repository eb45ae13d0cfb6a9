/** Measure the program beside its alternatives: npm run bench -- [storage] [start] [package] [run] [overshoot] [guard] [fleet] */

import { messageOf, TrainerError } from '../lib/errors.ts'
import { listenForSignals } from '../lib/run/signals.ts'
import { didYouMean, type Program, readOptions } from '../lib/settings/options.ts'
import { runScript } from '../lib/settings/script.ts'
import { measureFleet } from './bench/fleet.ts'
import { measureGuard } from './bench/guard.ts'
import { describeMachine } from './bench/machine.ts'
import { measureOvershoot } from './bench/overshoot.ts'
import { measurePackage } from './bench/package.ts'
import { measureRuns } from './bench/run.ts'
import { measureStart } from './bench/start.ts'
import { measureStorage } from './bench/storage.ts'
import { formatRow, type Group, tableHead } from './bench/table.ts'

const groups = new Map<string, { title: string; measure: Group }>([
  ['storage', { title: 'Measuring and pruning', measure: measureStorage }],
  ['start', { title: 'Starting', measure: measureStart }],
  ['package', { title: 'The package beside a clone', measure: measurePackage }],
  ['run', { title: 'Whole runs', measure: measureRuns }],
  [
    'overshoot',
    { title: 'Bytes above the quota, seen from outside; the most of all rounds', measure: measureOvershoot },
  ],
  ['guard', { title: 'What the guard costs', measure: measureGuard }],
  ['fleet', { title: 'Many sites on Slurm, the nodes on this one machine', measure: measureFleet }],
])
const names = [...groups.keys()]

const options = {
  seconds: { type: 'string', value: 'N', help: 'how long to watch an idle training (default: 180)' },
} as const

const program: Program<typeof options> = {
  name: 'test/bench.ts',
  summary: 'Measure the program beside its alternatives and print Markdown tables.',
  positionals: names.map(name => `[${name}]`).join(' '),
  options,
  example: 'storage guard --seconds 10',
}

process.exitCode = await runScript(async () => {
  const read = readOptions(process.argv.slice(2), program)
  if (typeof read === 'string') {
    print(read)
    return 0
  }
  const chosen = chooseGroups(read.positionals)
  const interrupts = listenForSignals()
  const bench = { signal: interrupts.signal, idleMs: 1000 * wholeSeconds(read.values.seconds ?? '180') }
  print(`${describeMachine()}. Medians of rounds in which the two take turns.`)
  for (const { title, measure } of chosen) {
    print(`\n### ${title}\n\n${tableHead}`)
    try {
      for await (const row of measure(bench)) print(formatRow(row))
    } catch (error) {
      bench.signal.throwIfAborted()
      print(formatRow({ what: title, unmeasured: messageOf(error) }))
    }
  }
  interrupts.close()
  return 0
})

function chooseGroups(wanted: string[]) {
  const unknown = wanted.find(name => !groups.has(name))
  if (unknown !== undefined) {
    const remedy = didYouMean(unknown, names)
    throw new TrainerError('usage', `Unknown group "${unknown}"; the groups are ${names.join(', ')}${remedy}`)
  }
  return [...groups].flatMap(([name, group]) => (!wanted.length || wanted.includes(name) ? [group] : []))
}

function wholeSeconds(value: string): number {
  if (/^[1-9]\d{0,4}$/.test(value)) return Number(value)
  throw new TrainerError('usage', `--seconds is "${value}", expected a whole number of at least 1`)
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}
