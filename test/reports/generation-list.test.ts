import { rmSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { generationOf } from '../../lib/models/generations.ts'
import { rollBack } from '../../lib/models/rollback.ts'
import { describeGenerations, statusOfGenerations } from '../../lib/reports/generation-list.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { trainAndPublish } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('generations are listed with which is current, which was rolled back from, and what made room', async () => {
  await using box = await sandbox()
  const reported = { performance_metrics: { recall: 0.9 } }
  for (const producer of ['a', 'b', 'c']) {
    const options = { keepGenerations: 5 }
    await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer }) }, { reported, options })
  }
  await rollBack('core', box.dir, generationOf(box.dir, 2))
  rmSync(box.path('generations/3/core.onnx'))
  const now = Date.parse('2026-01-02T03:04:15Z')

  const lines = describeGenerations('core', statusOfGenerations(box.dir), now)

  const bytes = `${onnxModel({ producer: 'a' }).length} B`
  assert.equal(lines, [
    `core generation 3 (rolled back from, its files have made room), 10 s old, ${bytes}: recall 0.900`,
    `core generation 2 (current), 10 s old, ${bytes}: recall 0.900`,
    `core generation 1, 10 s old, ${bytes}: recall 0.900`,
  ])
})

test('the name of a figure, which a training chose, does nothing to a terminal', async () => {
  await using box = await sandbox()
  const reported = { performance_metrics: { '\x1b[31mrecall\x1b]0;owned\x07': 0.9 } }
  for (const producer of ['a', 'b'])
    await trainAndPublish(box.dir, { 'core.onnx': onnxModel({ producer }) }, { reported })

  const lines = describeGenerations('core', statusOfGenerations(box.dir), Date.now())

  assert.is(lines.length, 2)
  for (const line of lines) assert.ok(line.endsWith(': \\x1b[31mrecall\\x1b]0;owned\\x07 0.900'), line)
})

test('a single generation is not listed: there is none to go back to', async () => {
  await using box = await sandbox()
  await trainAndPublish(box.dir, { 'core.onnx': onnxModel() })

  assert.equal(describeGenerations('core', statusOfGenerations(box.dir), Date.now()), [])
})

test.run()
