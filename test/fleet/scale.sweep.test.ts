import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { type EventBody, stampEvent } from '../../lib/events.ts'
import { MIB } from '../../lib/text.ts'
import { programOf, root } from '../support/places.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const SITES = 1000
const RUNNING = 300
const ROWS = 24
const COLUMNS = 80
const WATCHED_MS = 8000

inSweep('following a thousand sites takes at most a twentieth of a core, and fits the screen', async () => {
  await using box = await sandbox()
  const sites: Record<string, unknown> = {}
  const rows: string[] = []
  for (let id = 1; id <= SITES; id++) {
    const stateDir = box.path(`m${id}`, '.trainer')
    mkdirSync(stateDir, { recursive: true })
    const record = { jobId: id, submittedAt: '', journal: { inode: 0, bytes: 0 } }
    writeFileSync(`${stateDir}/slurm.json`, JSON.stringify(record))
    const isRunning = id <= RUNNING
    if (isRunning) writeFileSync(`${stateDir}/events.jsonl`, journalOf(id))
    sites[`site ${id}`] = { modelsDir: `m${id}`, quotas: 'quotas.json' }
    rows.push(rowOf(id, isRunning))
  }
  writeFileSync(box.path('fleet.json'), JSON.stringify({ sites }))
  writeFileSync(box.path('rows'), `${rows.join('\n')}\n`)
  // In the place of Slurm's own, which would need a thousand jobs.
  mkdirSync(box.path('bin'))
  writeFileSync(box.path('bin', 'squeue'), `#!/bin/sh\nexec cat '${box.path('rows')}'\n`, { mode: 0o755 })

  const command = `stty rows ${ROWS} cols ${COLUMNS}; exec ${process.execPath} ${programOf('scripts/fleet.ts').join(' ')} ${box.path('fleet.json')} --attach`
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    cwd: root,
    env: { ...process.env, PATH: `${box.path('bin')}:${process.env.PATH}`, TERM: 'xterm' },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  try {
    let screen = ''
    child.stdout.setEncoding('utf8').on('data', text => (screen += text))
    await until('it shows them', () => screen.includes(`${RUNNING} running`), 50_000)
    const pid = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8'))
    await delay(2000) // the first look reads every journal from its beginning
    const before = processorMs(pid)

    await delay(WATCHED_MS)

    const share = (processorMs(pid) - before) / WATCHED_MS
    assert.ok(share <= 0.05, `${(100 * share).toFixed(1)} % of a core`)
    const frame = screen.slice(screen.lastIndexOf(`${SITES} sites: `)).split('\n')
    assert.ok(frame.length > ROWS / 2 && frame.length <= ROWS, `${frame.length} rows`)
    assert.match(screen, 'core  ██████░░░░░░ 10 MiB of 20 MiB')
  } finally {
    child.kill('SIGKILL')
  }
})

test.run()

function journalOf(id: number): string {
  const events: EventBody[] = [
    { event: 'run.start', modelsDir: '/m', jobs: ['core'], version: '1', host: `n${id}`, slurmJob: id },
    { event: 'job.start', job: 'core', dir: '/m/core', limitBytes: 20 * MIB, guarantee: 'watch+sandbox' },
    {
      event: 'storage.usage',
      job: 'core',
      phase: 'training',
      usedBytes: 10 * MIB,
      limitBytes: 20 * MIB,
      freeBytes: 99 * MIB,
    },
  ]
  return events.map(body => `${JSON.stringify(stampEvent(`r${id}`, body))}\n`).join('')
}

/** As squeue prints a job in the columns that it is asked for. */
function rowOf(id: number, isRunning: boolean): string {
  const cells = [id, isRunning ? 'RUNNING' : 'PENDING', 0, 0, isRunning ? `n${id}` : '', 'Resources']
  const widths = [12, 20, 12, 8, 64, 160]
  const row = cells.map((cell, index) => String(cell).padEnd(widths[index]!)).join('')
  return row + `ransomeye:site ${id}`.padEnd(64)
}

/** Return the processor time of a process and its ended children. */
function processorMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return 10 * fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0)
}
