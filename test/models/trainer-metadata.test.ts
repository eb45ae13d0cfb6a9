import { linkSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { metricsOf, readReported } from '../../lib/models/trainer-metadata.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('readReported() reads what a trainer says, and nothing where it says nothing', async () => {
  await using box = await sandbox({ 'a/metadata.json': '{"version":"7","features":["size"]}', 'b/x': 1 })

  assert.equal(readReported(box.path('a')), { reported: { version: '7', features: ['size'] } })
  assert.equal(readReported(box.path('b')), { reported: {} })
})

test('readReported() leaves out what is not an object, not JSON or too long, with a warning', async () => {
  const cases: [content: string, warning: RegExp][] = [
    ['', /^Ignored the metadata.json that the training wrote: it is not JSON/],
    ['[1]', /it is not a JSON object$/],
    ['null', /it is not a JSON object$/],
    [`{"a":${'['.repeat(20_000)}${']'.repeat(20_000)}}`, /it is nested deeper than 32$/],
    [`{"text":"${'x'.repeat(65_526)}"}`, /it has 65537 bytes, at most 65536 are read$/],
  ]
  await using box = await sandbox()

  for (const [content, expected] of cases) {
    writeFileSync(box.path('metadata.json'), content)
    const { reported, warning } = readReported(box.dir)
    assert.equal(reported, {})
    assert.match(warning ?? '', expected)
  }
})

test('readReported() takes what Python writes for no number as not told, and leaves texts alone', async () => {
  const content =
    '{"performance_metrics": {"auc": NaN, "recall": 0.9, "loss": -Infinity}, "note": "NaN, \\"Infinity\\""}'
  await using box = await sandbox({ 'metadata.json': content })

  const { reported, warning } = readReported(box.dir)

  assert.is(warning, undefined)
  assert.equal(reported, {
    performance_metrics: { auc: null, recall: 0.9, loss: null },
    note: 'NaN, "Infinity"',
  })
  assert.equal(metricsOf(reported), { recall: 0.9 })
})

test('readReported() reads neither a link nor a file with a second name', async () => {
  await using box = await sandbox({ secret: '{"key":"value"}', 'a/x': 1, 'b/x': 1 })
  symlinkSync('../secret', box.path('a/metadata.json'))
  linkSync(box.path('secret'), box.path('b/metadata.json'))

  for (const folder of ['a', 'b']) {
    const { reported, warning } = readReported(box.path(folder))
    assert.equal(reported, {})
    assert.match(warning ?? '', /link/)
  }
})

test('metricsOf() picks the figures', () => {
  const figures = metricsOf({
    performance_metrics: { accuracy: 0.9, by: 'us', loss: 1, curve: [1], endless: Number.POSITIVE_INFINITY },
  })

  assert.equal(figures, { accuracy: 0.9, loss: 1 })
  for (const odd of [undefined, null, 3, 'high', [1]])
    assert.equal(metricsOf({ performance_metrics: odd }), {})
})

test.run()
