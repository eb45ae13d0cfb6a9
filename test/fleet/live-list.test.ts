import * as assert from 'uvu/assert'
import { FollowedSite } from '../../lib/fleet/followed-site.ts'
import { describeCounts, drawSites } from '../../lib/fleet/live-list.ts'
import { Pace } from '../../lib/fleet/pace.ts'
import { MIB } from '../../lib/text.ts'
import { test } from '../support/test.ts'

function sites(count: number, change: (site: FollowedSite, index: number) => void): FollowedSite[] {
  return Array.from({ length: count }, (_, index) => {
    const place = { name: `site-${index}`, modelsDir: `/m/${index}`, quotasFile: '/q' }
    const site = new FollowedSite(place, {
      jobId: index + 1,
      submittedAt: '',
      journal: { inode: 0, head: '', bytes: 0 },
    })
    change(site, index)
    return site
  })
}

const trains = (site: FollowedSite) => {
  site.state = 'running'
  site.host = 'n1'
  site.training = { job: 'core', usedBytes: 512 * MIB, limitBytes: 1024 * MIB }
}
const fails = (site: FollowedSite) => {
  site.state = 'failed'
  site.outcome = { exitCode: 1, message: `core's training ended with exit code 5${' and more'.repeat(40)}` }
}

test('the list shows what trains with its bar, why others wait, and failures with their reason', () => {
  const shown = sites(4, (site, index) => {
    if (index === 0) trains(site)
    if (index === 1) fails(site)
    if (index > 1) site.reason = 'Resources'
  })

  assert.is(describeCounts(shown), '4 sites: 2 waiting, 1 running, 1 failed')
  assert.equal(drawSites(shown, '', 70, 20), [
    'site-0 on n1: core  ██████░░░░░░ 512 MiB of 1024 MiB',
    '2 wait: Resources',
    "✖ site-1: core's training ended with exit code 5 and more and more an…",
  ])
})

for (const [trainings, failures] of [
  [1000, 0],
  [0, 1000],
  [500, 500],
  [2, 998],
  [998, 2],
] as const) {
  test(`a thousand sites, ${trainings} training and ${failures} failed, fit a screen of 80 by 24`, () => {
    const shown = sites(1000, (site, index) => (index < trainings ? trains(site) : fails(site)))

    const lines = drawSites(shown, 'a note', 74, 20)

    assert.ok(lines.length <= 20, `${lines.length} lines`)
    assert.ok(lines.length >= 10, `${lines.length} lines`)
    assert.ok(lines.every(line => line.length <= 74))
    if (trainings) assert.ok(lines.some(line => line.includes('512 MiB of 1024 MiB')))
    if (failures) assert.ok(lines.some(line => line.startsWith('✖')))
    assert.match(lines.join('\n'), /… and \d+ more/)
  })
}

test('Slurm is asked more and more rarely while nothing changes, soon again when something does', () => {
  const pace = new Pace(5000)
  const askedAtMs: number[] = []
  const hintAtMs = 400_000
  for (let nowMs = 0; nowMs < 500_000; nowMs += 1000) {
    if (!pace.isDue(nowMs, nowMs === hintAtMs)) continue
    askedAtMs.push(nowMs)
    pace.take(nowMs, 20, false)
  }
  const gaps = askedAtMs.map((nowMs, index) => nowMs - (askedAtMs[index - 1] ?? 0)).slice(1)

  assert.ok(gaps[0]! <= 8000, String(gaps))
  assert.ok(Math.max(...gaps) <= 60_000, String(gaps))
  assert.ok(
    askedAtMs.some(atMs => atMs >= hintAtMs && atMs <= hintAtMs + 5000),
    String(askedAtMs),
  )
})

test('a controller that is slow is asked for a tenth of its time at most', () => {
  const pace = new Pace(1000)
  pace.take(0, 2000, true)

  assert.not(pace.isDue(19_000, true))
  assert.ok(pace.isDue(20_000, true))
})

test.run()
