/** A fleet followed to its end where a stand-in for squeue says what Slurm's would say only after hours, or by chance. */
import { type ChildProcess, spawn } from 'node:child_process'
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { type EventBody, stampEvent } from '../../lib/events.ts'
import type { FleetEvent } from '../../lib/fleet/fleet-events.ts'
import { programOf, root } from '../support/places.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

type Row = { state: string; status?: number; reason?: string; name?: string }

const HOUR_MS = 3_600_000
/** For longer than a file is waited for that only adds words. */
const ADDED_WORDS_MS = 4000
const begin: EventBody = {
  ...{ event: 'run.start', modelsDir: '/m', jobs: ['core'], version: '1' },
  ...{ host: 'n1', slurmJob: 1 },
}
const end: EventBody = { event: 'run.done', exitCode: 0, seconds: 1, message: 'trained core' }

/** A fleet whose sites' jobs, 1 and on, were submitted an hour ago. */
async function submitted(...names: string[]) {
  const job = { maxDiskMb: 20, train: ['true'] }
  const quotas = JSON.stringify({ jobs: { core: job, dpi: job, agent: job } })
  const box = await sandbox({ 'quotas.json': quotas, rows: '', calls: '', cancelled: '', 'bin/empty': '' })
  const program = (name: string, line: string) =>
    writeFileSync(box.path('bin', name), `#!/bin/sh\n${line}\n`, { mode: 0o755 })
  const away = `[ ! -e '${box.path('away')}' ] || { echo 'Unable to contact slurm controller' >&2; exit 1; }`
  program('squeue', `date +%s%3N >> '${box.path('calls')}'\n${away}\nexec cat '${box.path('rows')}'`)
  program('sacct', 'exit 1')
  program('scancel', `${away}\necho "$@" >> '${box.path('cancelled')}'`)
  const submittedAt = new Date(Date.now() - HOUR_MS).toISOString()
  const stateDirs = names.map(name => box.path(name, '.trainer'))
  for (const [index, dir] of stateDirs.entries()) {
    mkdirSync(dir, { recursive: true })
    const record = { jobId: index + 1, submittedAt, journal: { inode: 0, bytes: 0 } }
    writeFileSync(`${dir}/slurm.json`, JSON.stringify(record))
  }
  const sites = Object.fromEntries(names.map(name => [name, { modelsDir: name, quotas: 'quotas.json' }]))
  writeFileSync(box.path('fleet.json'), JSON.stringify({ metrics: 'metrics', sites }))
  const children: ChildProcess[] = []
  return {
    submittedAt,
    /** Write down an event of the first site's run. */
    tell: (body: EventBody, secondsAgo = 0) => {
      const time = new Date(Date.now() - 1000 * secondsAgo).toISOString()
      appendFileSync(
        `${stateDirs[0]}/events.jsonl`,
        `${JSON.stringify({ ...stampEvent('r', body), time })}\n`,
      )
    },
    /** Change what squeue says from now on. */
    queue: (...rows: Row[]) => {
      const lines = rows.map(({ state, status = 0, reason = 'None', name }, index) => {
        const cells = [index + 1, state, status, 0, 'n1', reason].map(String)
        const widths = [12, 20, 12, 8, 64, 160]
        return `${cells.map((cell, column) => cell.slice(0, widths[column]).padEnd(widths[column]!)).join('')}${name ?? `ransomeye:${names[index]}`}`
      })
      writeFileSync(box.path('rows'), lines.map(line => `${line}\n`).join(''))
    },
    /** Take the controller away until it is brought back. */
    goAway: () => {
      writeFileSync(box.path('away'), '')
      return { comeBack: () => rmSync(box.path('away')) }
    },
    start: (...args: string[]) => {
      const argv = [...programOf('scripts/fleet.ts'), box.path('fleet.json'), '--poll', '1s', ...args]
      const child = spawn(process.execPath, argv, {
        cwd: root,
        env: { ...process.env, PATH: `${box.path('bin')}:${process.env.PATH}` },
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      children.push(child)
      let output = ''
      child.stdout.setEncoding('utf8').on('data', text => (output += text))
      const ended = new Promise<number | null>(resolve => child.on('close', resolve))
      return { child, output: () => output, ended }
    },
    /** Leave the fleet file as an editor does that is not done with it. */
    breakFile: () => writeFileSync(box.path('fleet.json'), '{ "sites": '),
    /** The ids that scancel was called with, a call a line. */
    cancelled: () => readFileSync(box.path('cancelled'), 'utf8'),
    metrics: () => readFileSync(box.path('metrics'), 'utf8'),
    /** When squeue was called, in milliseconds. */
    callsMs: () => readFileSync(box.path('calls'), 'utf8').trim().split('\n').map(Number),
    record: (name: string) => JSON.parse(readFileSync(box.path(name, '.trainer', 'slurm.json'), 'utf8')),
    async [Symbol.asyncDispose]() {
      for (const child of children) child.kill('SIGKILL')
      await box[Symbol.asyncDispose]()
    },
  }
}

function eventsIn(output: string): FleetEvent[] {
  return output
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
}

test('without a terminal a reason to wait is one line, for however many sites, and no second time', async () => {
  await using fleet = await submitted('paris', 'rome', 'oslo')
  const drained =
    'Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions'
  const waits = (reason: string) => ({ state: 'PENDING', reason })
  fleet.queue(waits('Priority'), waits('Priority'), waits('Priority'))
  const following = fleet.start('--attach')
  await until('Priority is told', () => following.output().includes('Priority'))
  fleet.queue(waits(drained), waits('Priority'), waits('Priority'))
  await until('the other is told', () => following.output().includes('DRAINED'))
  fleet.queue({ state: 'COMPLETED' }, waits('Priority'), { state: 'CANCELLED' })
  fleet.tell(begin)
  fleet.tell(end)
  await until('two have ended', () => /oslo: failed/.test(following.output()))
  fleet.queue({ state: 'COMPLETED' }, { state: 'CANCELLED' }, { state: 'CANCELLED' })

  assert.is(await following.ended, 143)
  const told = following
    .output()
    .split('\n')
    .filter(line => /\bwaits?:/.test(line))
  assert.is(told.length, 2, following.output())
  assert.match(told[0]!, / 3 wait: Priority$/)
  assert.match(told[1]!, ` 1 waits: ${drained} (see sinfo -R); 2 wait: Priority`)
})

test('a success whose end comes late over the network is one', async () => {
  await using fleet = await submitted('paris')
  fleet.queue({ state: 'COMPLETED' })
  const following = fleet.start('--attach', '--json')
  const isLate = (callMs: number, _: number, [firstMs]: number[]) => callMs - firstMs! > ADDED_WORDS_MS
  await until('two looks are late', () => fleet.callsMs().filter(isLate).length >= 2)
  assert.not.match(following.output(), /site\.(done|fail)/)
  fleet.tell(begin)
  fleet.tell(end)

  assert.is(await following.ended, 0, following.output())
})

test('a follower that has come back tells no event before an earlier one, and counts from the submission', async () => {
  await using fleet = await submitted('paris')
  fleet.queue({ state: 'RUNNING' })
  fleet.tell(begin, 60)
  const following = fleet.start('--attach', '--json')
  await until('it has started', () => following.output().includes('site.start'))
  fleet.tell(end)
  fleet.queue({ state: 'COMPLETED' })

  assert.is(await following.ended, 0, following.output())
  const own = eventsIn(following.output()).filter(event => 'site' in event)
  assert.equal(
    own.map(({ event }) => event),
    ['site.submit', 'site.start', 'run.start', 'run.done', 'site.done'],
  )
  const times = own.map(({ time }) => time)
  assert.equal(times, times.toSorted())
  assert.is(times[0], fleet.submittedAt)
  const done = own.at(-1)!
  assert.ok(done.event === 'site.done' && Math.abs(done.seconds - 3600) < 60, JSON.stringify(done))
})

test('a fleet says how to leave it, and after a failure what to look at, as a line to copy', async () => {
  await using fleet = await submitted('paris')
  fleet.queue({ state: 'TIMEOUT' })
  const following = fleet.start('--attach')

  assert.is(await following.ended, 1)
  const lines = following.output().trimEnd().split('\n')
  assert.match(lines[0]!, 'Ctrl-C ends all jobs; close the terminal to leave them running')
  assert.match(lines.at(-2)!, /ERROR 0 of 1 site done, 1 failed \(exit code 1\), after [\d.]+ s$/)
  assert.match(lines.at(-1)!, /^ {2}node .*fleet\.json --status$/)
})

test('a fleet ends as its sites do, though its file cannot be read any more', async () => {
  await using fleet = await submitted('paris', 'rome')
  fleet.queue({ state: 'RUNNING' })
  const following = fleet.start('--attach', '--json', 'paris')
  await until('it has started', () => following.output().includes('site.start'))
  fleet.breakFile()
  fleet.queue({ state: 'TIMEOUT' })

  assert.is(await following.ended, 1)
  const done = eventsIn(following.output()).at(-1)!
  assert.ok(done.event === 'fleet.done', JSON.stringify(done))
  assert.is(done.exitCode, 1)
  assert.match(done.next!, /fleet\.json paris --status$/)
})

test('a job that nobody has followed is judged by Slurm, and not by the run before once that has forgotten it', async () => {
  await using fleet = await submitted('paris')
  fleet.tell({ ...begin, slurmJob: 99 }, 2 * 3600)
  fleet.tell(end, 2 * 3600)
  const status = async () => {
    const { ended, output } = fleet.start('--status', '--json')
    assert.is(await ended, 0)
    const { state, lastJob } = JSON.parse(output())
    return { state, ...lastJob }
  }

  fleet.queue({ state: 'TIMEOUT' })
  const known = await status()
  fleet.queue()
  const forgotten = await status()

  assert.equal([known.state, known.exitCode], ['failed', 1])
  assert.match(known.message, 'it ran into its time limit')
  assert.equal([forgotten.state, forgotten.exitCode], ['failed', 1])
  assert.match(forgotten.message, 'unknown: its job 1 has left the queue without an end')
})

test('of a job that is cancelled is told how it came out, with its own words if they come late', async () => {
  await using fleet = await submitted('paris', 'rome')
  fleet.queue({ state: 'RUNNING' }, { state: 'RUNNING' })
  fleet.tell(begin)
  const following = fleet.start('--attach', '--json')
  await until('both have started', () => following.output().split('site.start').length > 2)
  following.child.kill('SIGTERM')
  await until('both are cancelled', () => fleet.cancelled() === '1 2\n')
  const calls = fleet.callsMs().length
  fleet.queue({ state: 'CANCELLED' }, { state: 'CANCELLED' })
  await until('both are seen to have ended', () => fleet.callsMs().length > calls)
  fleet.tell({ ...end, exitCode: 143, message: 'interrupted by SIGTERM' })

  assert.is(await following.ended, 143, following.output())
  const fails = eventsIn(following.output()).flatMap(it =>
    it.event === 'site.fail' ? [[it.site, it.exitCode, it.message]] : [],
  )
  assert.equal(fails, [
    ['paris', 143, 'its job 1 was cancelled: interrupted by SIGTERM'],
    ['rome', 143, 'its job 2 was cancelled'],
  ])
  assert.is(fleet.record('rome').outcome.exitCode, 143)
  assert.match(fleet.metrics(), /state="running"} 0\n.*state="done"} 0\n.*state="failed"} 2\n/s)
})

test("--cancel ends no job of another's that has the id of one of ours", async () => {
  await using fleet = await submitted('paris', 'rome', 'oslo')
  const others = { state: 'RUNNING', name: 'backup' }
  fleet.queue({ state: 'RUNNING' }, others, { state: 'PENDING', reason: 'JobHeldUser' })
  const cancelling = fleet.start('--cancel', '--json')
  await until('ours are cancelled', () => fleet.cancelled() !== '')
  fleet.queue({ state: 'CANCELLED' }, others, { state: 'CANCELLED' })

  assert.is(await cancelling.ended, 0, cancelling.output())
  assert.is(fleet.cancelled(), '1 3\n')
})

inSweep('--cancel is sent once the controller is back', async () => {
  await using fleet = await submitted('paris')
  fleet.queue({ state: 'RUNNING' })
  const controller = fleet.goAway()
  const cancelling = fleet.start('--cancel', '--json')
  await until('it has seen that', () => cancelling.output().includes('slurm.away'))
  controller.comeBack()
  await until('it is cancelled', () => fleet.cancelled() === '1\n')
  fleet.queue({ state: 'CANCELLED' })

  assert.is(await cancelling.ended, 0, cancelling.output())
})

test('a success is one though the begin of its run has left the journal', async () => {
  await using fleet = await submitted('paris')
  fleet.queue({ state: 'COMPLETED' })
  fleet.tell({ ...end, host: 'n1', slurmJob: 1 })
  const status = fleet.start('--status', '--json')
  await status.ended

  const following = fleet.start('--attach', '--json')

  assert.is(await following.ended, 0, following.output())
  assert.is(JSON.parse(status.output()).state, 'done')
})

test('how a job came out is kept, and found when Slurm has forgotten the job', async () => {
  await using fleet = await submitted('paris')
  fleet.queue({ state: 'NODE_FAIL' })
  const first = fleet.start('--attach', '--json')
  assert.is(await first.ended, 75)
  const { outcome } = fleet.record('paris')
  fleet.queue()

  const again = fleet.start('--attach', '--json')
  const status = fleet.start('--status', '--json')

  assert.equal([outcome.exitCode, outcome.slurmJob], [75, 1])
  assert.match(outcome.message, 'node n1 is lost')
  assert.is(await again.ended, 75, again.output())
  assert.match(again.output(), 'node n1 is lost')
  assert.equal(fleet.record('paris').outcome, outcome)
  await status.ended
  const { state, lastJob } = JSON.parse(status.output())
  assert.equal([state, lastJob.exitCode, lastJob.message], ['failed', 75, outcome.message])
})

test.run()
