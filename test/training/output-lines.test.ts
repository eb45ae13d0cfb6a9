import * as assert from 'uvu/assert'
import { OutputLines } from '../../lib/training/output-lines.ts'
import { test } from '../support/test.ts'

function outputOf(...chunks: (string | Buffer)[]): { lines: string[]; states: string[] } {
  const lines: string[] = []
  const states: string[] = []
  const output = new OutputLines(
    more => lines.push(...more),
    state => states.push(state),
  )
  for (const chunk of chunks) output.write(Buffer.from(chunk as string))
  output.end()
  return { lines, states }
}

const linesOf = (...chunks: (string | Buffer)[]) => outputOf(...chunks).lines

test('OutputLines joins lines across chunks, in the middle of a character too', () => {
  const [head, tail] = [Buffer.from('é').subarray(0, 1), Buffer.from('é').subarray(1)]

  assert.equal(linesOf('epo', 'ch 1\nepoch', ' 2', '\n', 'caf', head, tail), ['epoch 1', 'epoch 2', 'café'])
})

test('OutputLines makes one line, with the last state, of what is redrawn by carriage returns', () => {
  const { lines, states } = outputOf('start\r\n\r 10%', '\r 20%', '\r 30%\r\n\ndone')

  assert.equal(lines, ['start', ' 30%', 'done'])
  assert.equal(states, [' 10%', ' 20%'])
})

test('OutputLines keeps the last state of a bar that the training dies in', () => {
  assert.equal(linesOf('\r 10%', '\r 20%'), [' 20%'])
})

test('OutputLines gives no line for a bar that is wiped out, as with tqdm leave=False', () => {
  assert.equal(linesOf('\r 50%|##  |\r100%|####|\r          \rsaved\n'), ['saved'])
})

test('OutputLines makes one line of each of several bars that are redrawn by moving the cursor up', () => {
  const inner = (share: number) => `\n\r ${share}% inner\x1b[A`
  const outer = (share: number) => `\r ${share}% outer`
  const redrawn = [10, 20, 30].flatMap(share => [inner(share), outer(share)])

  assert.equal(linesOf(outer(0), ...redrawn, '\n\nthe end\n'), [
    ' 0% outer',
    ' 30% outer',
    ' 30% inner',
    'the end',
  ])
})

const dropped: [what: string, text: string][] = [
  ['colours', '\x1b[1;38;5;196mred\x1b[0m'],
  ['erasing', '\x1b[2J\x1b[Kred\x1b[0J'],
  ['hiding of the cursor', '\x1b[?25lred\x1b[?25h'],
  ['movement of the cursor', '\x1b[3C\x1b[2Dred\x1b[1B'],
  ['a hyperlink', '\x1b]8;;https://example.org/a?b=c\x1b\\red\x1b]8;;\x1b\\'],
  ['a hyperlink that ends with a bell', '\x1b]8;id=1;file:///a\x07red\x1b]8;;\x07'],
  ['a title', '\x1b]0;training\x07red'],
  ['a string for a device', '\x1bPq#0\x1b\\red'],
  ['a saved cursor and a character set', '\x1b7\x1b(Bred\x1b8'],
  ['sequences of one byte', '\x9b31mred\x9b0m'],
  ['backspaces', '\b\b\bred'],
]
for (const [what, text] of dropped) {
  test(`OutputLines drops ${what}, also where a chunk ends in it`, () => {
    assert.equal(linesOf(`${text}\n`), ['red'])
    assert.equal(linesOf(...text, '\n'), ['red'])
  })
}

test('OutputLines makes any other control character visible, and text after a sequence that has no end', () => {
  assert.equal(linesOf('a\x07b\x1b\n'), ['a\\x07b\\x1b'])
  assert.equal(linesOf('\x1b]8;;evil\nnext\n'), ['8;;evil', 'next'])
})

test('OutputLines cuts output without a newline into bounded pieces and loses nothing', () => {
  const pieces = linesOf(...Array.from({ length: 50 }, () => 'x'.repeat(1000)))

  assert.is(pieces.join(''), 'x'.repeat(50_000))
  assert.ok(Math.max(...pieces.map(piece => piece.length)) <= 2048)
})

test('OutputLines stays bounded whatever is redrawn, moved and begun', () => {
  const pieces = linesOf(
    ...Array.from({ length: 200 }, () => '\x1b[99999A'),
    ...Array.from({ length: 200 }, () => `\r${'y'.repeat(3000)}`),
    `\x1b]${'z'.repeat(100_000)}`,
    '\n',
  )

  assert.ok(Math.max(...pieces.map(piece => piece.length)) <= 2048)
})

test('OutputLines takes a megabyte of lines in less than a second', () => {
  const chunk = `${'step 1 loss 0.5\n'.repeat(4096)}`
  const startedMs = performance.now()

  const { lines } = outputOf(...Array.from({ length: 16 }, () => chunk))

  assert.is(lines.length, 65_536)
  assert.ok(performance.now() - startedMs < 1000)
})

test.run()
