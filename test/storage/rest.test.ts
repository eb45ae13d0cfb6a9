import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { describeRest } from '../../lib/storage/rest.ts'
import { removeExcess } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { digFolders } from '../support/deep-folder.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const LEVELS = 200
/** As long as a violation may wait for its words, and as much again for a slow machine. */
const MOST_MS = 2000

test('what stayed hundreds of folders deep is told at once, with the folder that it is in', async () => {
  await using box = await sandbox({ 'work/a': 4096 })
  using _deep = digFolders(box.path('work'), { levels: LEVELS, name: 'd1' }, innermost => {
    for (const name of ['x', 'y', 'z']) writeFileSync(`${innermost}/${name}`, Buffer.alloc(1024 * 1024))
  })
  const startedMs = performance.now()

  const rest = await describeRest(box.path(), {}, { faults: [] })

  const tookMs = performance.now() - startedMs
  assert.ok(tookMs < MOST_MS, `${tookMs} ms`)
  // The names of 32 levels but for work/, and the slashes between them.
  const told = Array(31).fill('d*').join('/')
  assert.match(
    rest,
    `left are 3 files ${told} (3 MiB, no rule names them), 1 file a (4 KiB, no rule names them); `,
  )
})

test('long names are told in part, and proposed to nobody', async () => {
  await using box = await sandbox()
  for (const n of [1, 2]) {
    mkdirSync(box.path('work', 'n'.repeat(250), String(n)), { recursive: true })
    writeFileSync(box.path('work', 'n'.repeat(250), String(n), 'x'), Buffer.alloc(4096))
  }

  const rest = await describeRest(box.path(), {}, { faults: [] })

  // 99 characters of each end: the last are "/[0-9]*".
  assert.is(rest, `left are 2 files ${'n'.repeat(99)}…${'n'.repeat(92)}/[0-9]* (8 KiB, no rule names them); `)
})

test('files that went at once are told as if they were left', async () => {
  await using box = await sandbox({
    'work/part-1': 2 * MIB,
    'work/part-2': 2 * MIB,
    'work/3.checkpoint': 1000,
  })
  const before = await describeRest(box.path(), {}, { faults: [] })

  const { gone } = await removeExcess(box.path(), { usedBytes: 4 * MIB, limitBytes: 1 }, {})

  assert.equal(readdirSync(box.path('work')), ['3.checkpoint'])
  assert.is(await describeRest(box.path(), {}, { faults: [], gone }), before)
})

test('the words about what stayed wait for nothing once a run is interrupted', async () => {
  await using box = await sandbox({ 'work/a': 4096 })
  for (let n = 0; n < 3000; n++) mkdirSync(box.path('work', `d${n}`))
  const interruption = new AbortController()
  const told = describeRest(box.path(), { signal: interruption.signal }, { faults: [] })
  interruption.abort()
  const startedMs = performance.now()

  await told

  assert.ok(performance.now() - startedMs < 200)
})

test.run()
