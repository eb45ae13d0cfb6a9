import * as assert from 'uvu/assert'
import { OutputLines } from '../../lib/training/output-lines.ts'
import { test } from '../support/test.ts'

function linesOf(...chunks: (string | Buffer)[]): string[] {
  const lines: string[] = []
  const output = new OutputLines(more => lines.push(...more))
  for (const chunk of chunks) output.write(Buffer.from(chunk as string))
  output.end()
  return lines
}

test('OutputLines joins lines across chunks, in the middle of a character too', () => {
  const [head, tail] = [Buffer.from('é').subarray(0, 1), Buffer.from('é').subarray(1)]

  assert.equal(linesOf('epo', 'ch 1\nepoch', ' 2', '\n', 'caf', head, tail), ['epoch 1', 'epoch 2', 'café'])
})

test('OutputLines takes a carriage return for the end of a line, as progress bars redraw with it', () => {
  assert.equal(linesOf(' 10%\r 20%\r\n\ndone'), [' 10%', ' 20%', 'done'])
})

test('OutputLines drops colours and makes any other control character visible', () => {
  assert.equal(linesOf('\x1b[1;31mred\x1b[0m \x1b[2J\x07\n'), ['red \\x1b[2J\\x07'])
})

test('OutputLines cuts output without a newline into bounded pieces and loses nothing', () => {
  const pieces = linesOf(...Array.from({ length: 50 }, () => 'x'.repeat(1000)))

  assert.is(pieces.join(''), 'x'.repeat(50_000))
  assert.ok(Math.max(...pieces.map(piece => piece.length)) <= 2048)
})

test.run()
