import * as assert from 'uvu/assert'
import {
  escapeText,
  formatBar,
  formatBytes,
  formatClock,
  formatMetricsTable,
  formatSeconds,
} from '../lib/text.ts'
import { test } from './support/test.ts'

test('formatBytes() gives MiB, and smaller units below, with a decimal only where it tells something', () => {
  const sizes = [0, 512, 12_700, 419_430, 200 * 2 ** 20, 3072 * 2 ** 20, -1.5 * 2 ** 20]

  const shown = sizes.map(formatBytes)

  assert.equal(shown, ['0 B', '512 B', '12.4 KiB', '410 KiB', '200 MiB', '3072 MiB', '-1.5 MiB'])
})

test('formatMetricsTable() shows as many metrics as fit', () => {
  const models = { core: { accuracy: 0.9131, recall: 1 }, dpi: { accuracy: 0.5, macro_f1: 0.25 } }

  assert.is(
    formatMetricsTable(models, 80),
    `holdout  accuracy  recall  macro_f1
core        0.913       1
dpi         0.500             0.250`,
  )
  assert.is(formatMetricsTable(models, 30), `holdout  accuracy\ncore        0.913\ndpi         0.500`)
})

test('formatSeconds() and formatClock() carry minutes and hours', () => {
  assert.equal([0.25, 59, 65, 3600 * 2 + 840].map(formatSeconds), [
    '0.3 s',
    '59 s',
    '1 min 05 s',
    '2 h 14 min',
  ])
  assert.equal([7.9, 65, 3723].map(formatClock), ['00:07', '01:05', '1:02:03'])
})

test('formatBar() stays inside its width, whatever is used', () => {
  assert.equal(
    [0, 50, 100, 250].map(used => formatBar(used, 100, 4)),
    ['░░░░', '██░░', '████', '████'],
  )
})

test('escapeText() leaves text in any language and makes control characters visible', () => {
  assert.is(escapeText('Prüfung 试验 ✓'), 'Prüfung 试验 ✓')
  assert.is(escapeText('a\nb\x1b[31m\x07\u202e\u0085'), 'a\\x0ab\\x1b[31m\\x07\\u{202e}\\x85')
})

test('escapeText() tells names apart that differ only in bytes that are not UTF-8', () => {
  const names = [Buffer.from('a\ufffd'), Buffer.from([0x61, 0xff]), Buffer.from([0x61, 0xfe])]

  assert.equal(names.map(escapeText), ['a\ufffd', 'a\\xff', 'a\\xfe'])
})

test.run()
