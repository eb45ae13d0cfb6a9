import { existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import type { Browser, Page } from 'playwright-core'
import * as assert from 'uvu/assert'
import { parseEvent } from '../../lib/events.ts'
import { groupRuns, readRuns } from '../../lib/reports/history.ts'
import { listDeletions } from '../../lib/reports/html/tables.ts'
import { takeLock } from '../../lib/run/lock.ts'
import { writeReport } from '../../scripts/report.ts'
import { failure } from '../support/failure.ts'
import { journalLine, type Sketch } from '../support/journal.ts'
import { type OwnDisk, ownDisk } from '../support/own-disk.ts'
import { publishes, type Rig, trainerRig } from '../support/rig.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { hasLoopDevices } from '../support/volume-rig.ts'

const BROWSER = '/usr/bin/chromium'
const browserTest = skipUnless(inSweep, existsSync(BROWSER), 'needs chromium')
const script = 'scripts/report.ts'
const evilName = '<img src=x onerror=alert(1)>.tmp'
const evilText = '</script></title></style><svg onload=alert(2)>'

/** Two runs: in the first all three jobs train and core is pruned; in the second dpi's training fails. */
async function makeHistory(): Promise<Rig> {
  const metadata = { trained_on: evilText, performance_metrics: { [evilText]: 0.5, recall: 0.987654 } }
  const rig = await trainerRig({
    core: {
      trainer: `fs.writeFileSync(dir + '/${evilName}', Buffer.alloc(2 ** 20))
for (let i = 0; i < 30; i++) { fs.writeFileSync(dir + '/' + i + '.checkpoint', Buffer.alloc(2 ** 20)); await sleep(25) }
fs.writeFileSync(dir + '/metadata.json', ${JSON.stringify(JSON.stringify(metadata))})
${publishes}`,
    },
    dpi: {
      trainer: `if (fs.existsSync('dpi.fails')) { console.log('${evilText}'); process.exit(3) }
await sleep(200)
${publishes}`,
    },
    agent: { trainer: `await sleep(200)\n${publishes}` },
  })
  // Others who write to the same disk would pause every job.
  disk = hasLoopDevices ? ownDisk(rig, 'ext4', 600) : undefined
  assert.is((await rig.run()).exitCode, 0)
  writeFileSync(rig.path('dpi.fails'), '')
  assert.is((await rig.run(['dpi', '--retrain'])).exitCode, 1)
  return rig
}

/** The runs take seconds, and the tests that look at them change nothing. */
let history: Promise<Rig> | undefined
let disk: OwnDisk | undefined
let browser: Promise<Browser> | undefined
const startedBrowser = () => (browser ??= startBrowser())
const rigWithHistory = () => (history ??= makeHistory())
test.after(async () => {
  await (await browser)?.close()
  const rig = await history
  await disk?.[Symbol.asyncDispose]()
  await rig?.[Symbol.asyncDispose]()
})

async function reportOf(rig: Rig): Promise<string> {
  const out = rig.path('report.html')
  const { exitCode, stdout, stderr } = await rig.run(['--out', out], { script })
  assert.is(stderr, '')
  assert.is(exitCode, 0)
  assert.is(stdout, `The report is in ${out}\n`)
  return out
}

inSweep('report writes one page with every run, deletion, model and hash, all of it escaped', async () => {
  const rig = await rigWithHistory()

  const page = readFileSync(await reportOf(rig), 'utf8')

  const manifest = JSON.parse(readFileSync(`${rig.modelsDir}/core/manifest.json`, 'utf8'))
  assert.ok(page.includes(manifest.files['core.onnx']))
  assert.match(page, /No two trainings overlapped\./)
  assert.match(page, /recall<\/dt><dd>0\.9877</)
  assert.match(page, /dpi&#39;s training ended with exit code 3/)
  assert.match(page, /work\/&#60;img src=x onerror=alert\(1\)&#62;\.tmp/)
  assert.match(page, /&#60;\/script&#62;&#60;\/title&#62;&#60;\/style&#62;&#60;svg onload=alert\(2\)&#62;/)
  assert.not.match(page, /<img|<svg onload|<script|onerror=alert\(1\)>/)
  assert.not.match(page, /https?:\/\/(?!www\.w3\.org\/(2000\/svg|1999\/xhtml)")/)
})

browserTest(
  'report opens in a browser from disk: charts of every job, both themes, nothing fetched, nothing run',
  async () => {
    const rig = await rigWithHistory()
    const url = pathToFileURL(await reportOf(rig)).href
    const browser = await startedBrowser()
    const backgrounds = new Set<string>()
    const all = [1280, 390].flatMap(width => [
      { colorScheme: 'light' as const, width },
      { colorScheme: 'dark' as const, width },
    ])
    for (const { colorScheme, width } of all) {
      const page = await browser.newPage({ colorScheme, viewport: { width, height: 844 } })
      const { requests, faults } = listen(page)
      await page.goto(url)

      const bars = await barsOf(page)
      assert.equal(
        bars.map(({ fill }) => fill),
        ['var(--dpi)', 'var(--core)', 'var(--dpi)', 'var(--agent)'],
      )
      const [, core, dpi, agent] = bars
      assert.ok(core!.right <= dpi!.left + 0.01 && dpi!.right <= agent!.left + 0.01)

      for (const job of ['core', 'dpi', 'agent']) {
        const chart = page.locator(`svg[aria-label^="Disk usage of ${job} "]`).filter({ visible: true })
        assert.is((await chart.locator('[aria-label="line"] path').count()) > 0, true)
        assert.is(await chart.locator('.quota line').count(), job === 'dpi' ? 2 : 1)
        assert.is((await chart.locator('.pruned path').count()) > 0, job === 'core')
        assert.is((await chart.locator('.paused path').count()) > 0, job === 'core')
      }
      assert.equal(await labelFaults(page), [])
      assert.ok((await page.evaluate<number>('document.documentElement.scrollWidth')) <= width)
      assert.is(await page.locator('img, script, svg[onload]').count(), 0)
      backgrounds.add(await page.evaluate<string>('getComputedStyle(document.body).backgroundColor'))
      assert.equal(requests, [url])
      assert.equal(faults, [])
      await page.close()
    }
    assert.is(backgrounds.size, 2)
  },
)

browserTest(
  "report's labels stay apart, and its charts and tables fill a screen and fit it, however much there is in them",
  async () => {
    await using box = await sandbox({ '.trainer/events.jsonl': crowdedJournal() })
    await writeReport(['--models-dir', box.dir, '--out', box.path('r.html')])
    const browser = await startedBrowser()
    const page = await browser.newPage()
    await page.goto(pathToFileURL(box.path('r.html')).href)
    for (const { colorScheme, width } of screens) {
      await page.emulateMedia({ colorScheme })
      await page.setViewportSize({ width, height: 844 })

      assert.equal([...(await labelFaults(page)), ...(await roomFaults(page))], [], `${width} px`)
      const labels = await page.locator('.chart text').filter({ visible: true }).allTextContents()
      for (const label of ['disk full or not writable', 'peak 90 %', 'quota 99999 MiB', 'cut off'])
        assert.ok(
          labels.some(text => text.includes(label)),
          label,
        )
    }
  },
)

/** The narrowest, one between and the widest stand for those of the sweep. */
const screens = (['light', 'dark'] as const).flatMap(colorScheme =>
  [360, 420, 600, 820, 900, 1280, 1600].map(width => ({ colorScheme, width })),
)

/** Hours beside seconds, hundreds of prunes and pauses, failures with long words, quotas with many digits. */
function crowdedJournal(): string {
  const events: Sketch[] = []
  let run = ''
  let clockMs = Date.parse('2026-09-28T22:50:40Z')
  const add = (event: Sketch) => events.push({ run, time: new Date(clockMs).toISOString(), ...event })
  const train = (job: string, seconds: number, prunes: number) => {
    const limitBytes = 99_999 * 2 ** 20
    add({ event: 'job.start', job, dir: `/m/${job}`, limitBytes, guarantee: 'watch+sandbox' })
    add({ event: 'train.start', job })
    for (let index = 0; index < 100; index++) {
      clockMs += seconds * 10
      add({ event: 'storage.usage', job, usedBytes: limitBytes * (0.5 + (index % 11) / 25), limitBytes })
      if (index >= prunes) continue
      add({ event: 'train.freeze', job, usedBytes: limitBytes * 0.9 })
      const file = {
        path: `/m/${job}/work/${'long-name-'.repeat(9)}${index}.checkpoint`,
        mtime: '',
        rule: `runs/${'long-name-'.repeat(9)}*`,
      }
      add({ event: 'storage.prune', job, bytes: 1, usedBytes: limitBytes * 0.8, ...file })
      add({ event: 'train.resume', job, usedBytes: limitBytes * 0.8, pausedMs: 40 })
    }
  }
  const end = (job: string, exitCode: number) => {
    const reason = `${'no space left on device '.repeat(9)}/${'long-name-'.repeat(30)}`
    add({ event: 'train.exit', job, exitCode, signal: null })
    for (let index = 0; index < 8; index++)
      add({
        event: 'model.publish',
        job,
        path: `${index}.onnx`,
        bytes: 1,
        sha256: 'ab'.repeat(32),
        metrics: {},
      })
    add(exitCode ? { event: 'job.fail', job, message: reason } : { event: 'job.done', job, usedBytes: 1 })
    if (exitCode || job === 'agent') add({ event: 'run.done', exitCode: exitCode && 3, message: reason })
  }
  for (const seconds of [4000, 1, 1, 0.5, 1, 3999, 0]) {
    run += 'r'
    clockMs += 3_600_000
    add({ event: 'run.start', jobs: ['core', 'dpi', 'agent'] })
    for (const job of ['core', 'dpi', 'agent']) {
      train(job, seconds, 100)
      end(job, 0)
    }
  }
  for (const seconds of [15_000, 0.1, 14_000]) {
    run += 'r'
    add({ event: 'run.start', jobs: ['core', 'dpi'] })
    train('core', seconds, 10)
    if (seconds < 15_000) end('core', 1)
  }
  return journalOf(...events)
}

/** Events of one run at one time, as the journal has them. */
function journalOf(...events: Sketch[]): string {
  return events.map(journalLine).join('')
}

async function startBrowser(): Promise<Browser> {
  const { chromium } = await import('playwright-core')
  const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync']
  flags.push('--disable-background-networking', '--disable-component-update')
  return chromium.launch({ executablePath: BROWSER, args: flags })
}

/** Visible texts of a chart that lie on each other or leave it; half a pixel is rounding. */
function labelFaults(page: Page): Promise<string[]> {
  return page.evaluate<string[]>(`[...document.querySelectorAll('.chart svg')].flatMap(svg => {
    const frame = svg.getBoundingClientRect()
    const texts = [...svg.querySelectorAll('text')].map(it => ({ text: it.textContent, box: it.getBoundingClientRect() }))
    const isOn = (a, b) => a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5
    const leaves = ({ left, right, top, bottom }) =>
      left < frame.left - 0.5 || right > frame.right + 0.5 || top < frame.top - 0.5 || bottom > frame.bottom + 0.5
    return texts.flatMap((it, index) => [
      ...(leaves(it.box) ? [it.text + ' leaves its chart'] : []),
      ...texts.slice(index + 1).filter(other => isOn(it.box, other.box)).map(other => it.text + ' lies on ' + other.text),
    ])
  })`)
}

/** Return what is wider than its place, and charts that leave more than a fifth of theirs blank. */
function roomFaults(page: Page): Promise<string[]> {
  return page.evaluate<string[]>(`[
    ...[document.documentElement, ...document.querySelectorAll('.scroll')]
      .filter(it => it.scrollWidth > it.clientWidth)
      .map(it => it.tagName + ' needs ' + it.scrollWidth + ' of ' + it.clientWidth + ' px'),
    ...[...document.querySelectorAll('.chart')]
      .map(it => [it.clientWidth, ...[...it.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().width).filter(Boolean)])
      .filter(([room, ...drawn]) => drawn.length !== 1 || drawn[0] > room || drawn[0] < 0.8 * room)
      .map(([room, ...drawn]) => 'charts of ' + drawn + ' in ' + room + ' px'),
  ]`)
}

/** Note what a page fetches, and what it should not do at all. */
function listen(page: Page): { requests: string[]; faults: string[] } {
  const requests: string[] = []
  const faults: string[] = []
  page.on('request', request => requests.push(request.url()))
  page.on('console', message => faults.push(message.text()))
  page.on('pageerror', error => faults.push(error.message))
  page.on('dialog', dialog => {
    faults.push(dialog.message())
    void dialog.dismiss()
  })
  return { requests, faults }
}

type Bar = { fill: string; left: number; right: number }

/** The timeline's visible bars, from top to bottom. */
function barsOf(page: Page): Promise<Bar[]> {
  return page.evaluate<Bar[]>(`[...document.querySelectorAll('svg[aria-label^="Timeline"] .trainings path')]
    .map(bar => ({ fill: bar.getAttribute('fill'), ...bar.getBoundingClientRect().toJSON() }))
    .filter(({ width }) => width > 0)
    .sort((a, b) => a.top - b.top)`)
}

test('a list of deletions says that it leaves some out only where it does', () => {
  const listOf = (count: number) => {
    const prunes = Array.from({ length: count }, () => ({ event: 'storage.prune' }) as const)
    const lines = [{ event: 'run.start' } as const, { event: 'job.start' } as const, ...prunes].map(
      sketch => parseEvent(JSON.parse(journalLine(sketch)))!,
    )
    return listDeletions(groupRuns(lines)).text
  }

  assert.match(listOf(100), 'core: 100 files')
  assert.not.match(listOf(100), 'are listed')
  assert.match(listOf(101), 'The last 100 are listed.')
})

test('report says so when there is no history yet', async () => {
  await using box = await sandbox({ 'models/.trainer/lock': '' })

  await writeReport(['--models-dir', box.path('models'), '--out', box.path('r.html')])

  const page = readFileSync(box.path('r.html'), 'utf8')
  assert.match(page, /No run is recorded in [^<]*models yet/)
  assert.match(page, /no model is published/)
})

test('report says why a model was not accepted, with each figure and its limit, and that one is back', async () => {
  const metrics = { recall: { figure: 0.69, limit: 0.7 }, auc: { figure: 0.9, limit: 0.88 } }
  const reason = 'recall is 0.69, at least 0.7 is asked for'
  const journal = journalOf(
    { event: 'run.start', jobs: ['core'] },
    { event: 'day1.check' },
    { event: 'job.start' },
    { event: 'train.start' },
    { event: 'train.exit' },
    { event: 'model.refuse', reason, metrics },
    { event: 'job.fail', code: 'not-accepted', message: reason },
    { event: 'run.done', exitCode: 4, message: 'not accepted: core' },
    { event: 'run.start', jobs: ['core'], run: 'r2' },
    { event: 'model.rollback', generation: 1, from: 2, run: 'r2' },
    { event: 'run.done', run: 'r2' },
  )
  await using box = await sandbox({ '.trainer/events.jsonl': journal })

  await writeReport(['--models-dir', box.dir, '--out', box.path('r.html')])

  const page = readFileSync(box.path('r.html'), 'utf8')
  assert.match(page, 'a model was not accepted')
  assert.match(
    page,
    'core was not accepted: recall is 0.69, at least 0.7 is asked for; enough: auc is 0.9, at least 0.88 is asked for',
  )
  assert.match(page, 'generation 1 is back, 2 was current')
  assert.not.match(page, 'cut off')
})

test('report leaves an earlier one alone when the models folder is mistyped', async () => {
  await using box = await sandbox({ 'r.html': 'earlier', 'models/.trainer/lock': '' })

  for (const modelsDir of [box.path('model'), box.path('r.html')]) {
    const message = `Cannot report on ${modelsDir}: it has no .trainer, no run was made there; give the folder of a run with --models-dir`
    const error = await failure(() => writeReport(['--models-dir', modelsDir, '--out', box.path('r.html')]))
    assert.equal([error.code, error.exitCode, error.message], ['storage', 3, message])
  }
  assert.is(readFileSync(box.path('r.html'), 'utf8'), 'earlier')
})

test('report says that a run goes on while it holds the lock, and else that it was cut off', async () => {
  const journal = journalOf(
    { event: 'run.start', jobs: ['core', 'dpi'] },
    { event: 'day1.check', job: 'core' },
    { event: 'train.start', job: 'core' },
    { event: 'storage.usage', job: 'core', usedBytes: 1, limitBytes: 2 },
  )
  await using box = await sandbox({ '.trainer/events.jsonl': journal })
  const pageOf = async () => {
    await writeReport(['--models-dir', box.dir, '--out', box.path('r.html')])
    return readFileSync(box.path('r.html'), 'utf8')
  }

  const { release } = await takeLock(box.path('.trainer'))
  const during = await pageOf().finally(release)
  const after = await pageOf()

  assert.match(during, /data-label="core">running</)
  assert.match(during, /It goes on\./)
  assert.match(during, /core 0\.0 s, running</)
  assert.not.match(during, /cut off|killed/)
  assert.match(after, /data-label="core">cut off</)
  assert.match(after, /It was killed, lost power or could not record its end on a full disk\./)
  assert.not.match(after, /running|goes on/)
})

test('report tells pruning from training, and says that it could not keep a quota', async () => {
  const usage = { job: 'core', usedBytes: 5 * 2 ** 20, limitBytes: 2 ** 20 }
  const journal = [
    journalOf(
      { run: 'r1', event: 'run.start', jobs: ['core', 'dpi'] },
      { run: 'r1', event: 'storage.usage', ...usage },
      { run: 'r1', event: 'job.done', job: 'core', usedBytes: 0 },
      { run: 'r1', event: 'run.done', exitCode: 0 },
    ),
    journalOf(
      { run: 'r2', event: 'run.start', jobs: ['core'] },
      { run: 'r2', event: 'quota.exceeded', ...usage },
      { run: 'r2', event: 'job.fail', job: 'core', message: 'Model too large for quota' },
      { run: 'r2', event: 'run.done', exitCode: 2 },
    ),
  ]
  await using box = await sandbox({ '.trainer/events.jsonl': journal.join('') })

  await writeReport(['--models-dir', box.dir, '--out', box.path('r.html')])

  const page = readFileSync(box.path('r.html'), 'utf8')
  assert.match(page, /1 job seen above a limit\./)
  assert.match(page, /core \(1 Mar, 10:00:00\) used 5 MiB of 1 MiB\./)
  assert.match(page, /data-label="core">nothing to prune</)
  assert.not.match(page, /not started|No training was seen above/)
})

inSweep(
  'report counts a training that ran into its limit as no excess, and draws what was pruned after it',
  async () => {
    const trainer = "fs.writeFileSync(dir + '/model.bin', Buffer.alloc(30 * 2 ** 20))"
    await using rig = await trainerRig({ agent: { trainer } })
    assert.is((await rig.run(['agent'])).exitCode, 2)

    const page = readFileSync(await reportOf(rig), 'utf8')

    const [run] = readRuns(rig.path('models', '.trainer'), 1).runs
    const { peakBytes, samples } = run!.jobs[0]!
    assert.ok(peakBytes > 19 * 2 ** 20 && peakBytes <= 20 * 2 ** 20)
    assert.ok(samples.at(-1)!.usedBytes < 2 ** 20)
    assert.match(page, /No training was seen above its quota\./)
    assert.not.match(page, /seen above a limit|agent \([^)]*\) used/)
  },
)

test('report says which trainings overlapped and which exceeded their quota', async () => {
  const journal = journalOf(
    { event: 'job.start', job: 'core', dir: '/m/core', limitBytes: 2 ** 20, guarantee: 'watch' },
    { event: 'train.start', job: 'core' },
    { event: 'train.start', job: 'dpi' },
    { event: 'storage.usage', job: 'core', usedBytes: 3 * 2 ** 20, limitBytes: 2 ** 20 },
    { event: 'train.exit', job: 'core', exitCode: 0, signal: null },
  )
  await using box = await sandbox({ '.trainer/events.jsonl': journal })

  await writeReport(['--models-dir', box.dir, '--out', box.path('r.html')])

  const page = readFileSync(box.path('r.html'), 'utf8')
  assert.match(page, /1 training overlapped another\./)
  assert.match(page, /dpi \(1 Mar, 10:00:00\) began before core \(1 Mar, 10:00:00\) had ended\./)
  assert.match(page, /1 job seen above a limit\./)
  assert.match(page, /core \(1 Mar, 10:00:00\) used 3 MiB of 1 MiB\./)
  assert.match(page, /class="trainings"><path [^>]*fill="var\(--bad\)"/)
})

test('report shows at most the runs that were asked for', async () => {
  const starts = [1, 2, 3].map((run): Sketch => ({ run: `r${run}`, event: 'run.start' }))
  await using box = await sandbox({ '.trainer/events.jsonl': journalOf(...starts) })

  await writeReport(['--models-dir', box.dir, '--out', box.path('r.html'), '--runs', '2'])

  const rows = readFileSync(box.path('r.html'), 'utf8').match(/<tr>\s*<th scope="row">/g)
  assert.is(rows?.length, 2)
})

test('report replaces an earlier one as a whole, through a link too', async () => {
  await using box = await sandbox({ 'earlier.html': 'earlier', '.trainer/lock': '' })
  symlinkSync('earlier.html', box.path('r.html'))

  await writeReport(['--models-dir', box.dir, '--out', box.path('r.html')])

  assert.match(readFileSync(box.path('earlier.html'), 'utf8'), /^<!doctype html>.*<\/html>\n$/s)
  assert.equal(readdirSync(box.dir).sort(), ['.trainer', 'earlier.html', 'r.html'])
})

test('report refuses to replace what is not a file, and says what it cannot write', async () => {
  await using box = await sandbox({ 'folder/file': 1, '.trainer/lock': '' })
  const places = [
    box.path('folder'),
    '/dev/null',
    box.path('missing', 'r.html'),
    box.path('folder', 'file', 'r'),
  ]

  for (const out of places) {
    const { code, message } = await failure(() => writeReport(['--models-dir', box.dir, '--out', out]))
    assert.is(code, 'storage')
    assert.ok(message.startsWith(`Cannot write ${out}: `), message)
    assert.match(message, /: .+; choose another --out$/)
    assert.ok(message.includes(out))
  }

  assert.ok(statSync('/dev/null').isCharacterDevice())
  assert.equal(readdirSync(box.dir), ['.trainer', 'folder'])
})

test('report refuses a number of runs that is none', async () => {
  await using box = await sandbox()

  for (const runs of ['0', '-1', '1.5', 'ten']) {
    const { code, message } = await failure(() =>
      writeReport(['--out', box.path('r.html'), `--runs=${runs}`]),
    )
    assert.equal([code, message], ['usage', `--runs is "${runs}", expected a whole number from 1 to 9999`])
  }
  assert.equal(readdirSync(box.dir), [])
})

test.run()
