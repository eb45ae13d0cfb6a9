import { mkdirSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { readReported } from '../../lib/models/trainer-metadata.ts'
import type { Job } from '../../lib/run.ts'
import { measure } from '../../lib/storage/measure.ts'
import {
  Belonging,
  comparable,
  isBestName,
  isStagingName,
  isTelling,
  placeOf,
} from '../../lib/storage/naming.ts'
import { patternOf } from '../../lib/storage/patterns.ts'
import { isPointerName } from '../../lib/storage/pointers.ts'
import { OutputLines } from '../../lib/training/output-lines.ts'
import { Progress } from '../../lib/training/progress.ts'
import { explainRefusal } from '../../lib/training/refused-write.ts'
import { isProgressLine, ToldProgress } from '../../lib/training/told-progress.ts'
import { sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

/** A search that takes time in proportion to the length is done in a few milliseconds; the square of it takes seconds. */
const MOST_MS = 200
const FILE = 64 * 1024
const LINE = 2048
/** As long as progress is looked for in a line. */
const SHORT = 590

const HEADS = [
  '',
  'RANSOMEYE_PROGRESS ',
  'RANSOMEYE_PROGRESS 1',
  `RANSOMEYE_PROGRESS ${'1'.repeat(190)}`,
  'model_checkpoint_path:',
  '"best_model_checkpoint": "',
  'cannot create /x',
  'Epoch 1',
  ' 1/1',
  '5%|',
  'Error [',
  '[Error: ',
  'checkpoint-1',
  '_rank1',
  '\x1b]',
]
const UNITS = [
  '\n',
  '\r',
  ' ',
  '\t',
  '1',
  '.',
  '1.',
  '[',
  ']',
  '(',
  '{',
  '/',
  '‘',
  "'",
  '"',
  '\\"',
  '\\',
  '_',
  '-',
  ' 1/1',
  '1 ',
  'epoch ',
  'e1',
]
const TAILS = ['', 'x', ': Permission denie', ': read-only file system']

/** Repeat each unit between each beginning and end, up to so many bytes. */
function hostile(bytes: number): string[] {
  const middles = UNITS.map(unit => unit.repeat(Math.ceil(bytes / unit.length)))
  const all = HEADS.flatMap(head =>
    middles.flatMap(middle => TAILS.map(tail => [head, middle, tail] as const)),
  )
  // One value of each text: its beginning and its end stay, whatever is in between.
  return all.map(([head, middle, tail]) => head + middle.slice(0, bytes - head.length - tail.length) + tail)
}

/** Tell which of the texts takes a function most of a processor's time: a busy machine makes everything last longer. */
async function slowest(
  texts: string[],
  read: (text: string) => unknown,
  prepare: (text: string) => void = () => {},
): Promise<{ ms: number; text: string }> {
  let worst = { ms: 0, text: '' }
  for (const text of texts) {
    prepare(text)
    const before = process.cpuUsage()
    await read(text)
    const { user, system } = process.cpuUsage(before)
    const ms = (user + system) / 1000
    if (ms > worst.ms) worst = { ms, text: JSON.stringify(`${text.slice(0, 60)} … ${text.slice(-10)}`) }
  }
  return worst
}

const job = {
  name: 'core',
  workDir: '/models/core/work',
  emit() {},
  pruned: Array.from({ length: 1000 }, (_, n) => ({ path: `/m/${n}/1`, rule: '*.tmp', time: '' })),
} as unknown as Job

const ofLines: [what: string, bytes: number, read: (line: string) => void][] = [
  ['isProgressLine()', LINE, isProgressLine],
  ['what is told of progress', SHORT, line => new ToldProgress().take(line, 0)],
  [
    'the words for a refused write',
    LINE,
    line => explainRefusal(line, { ...job, run: { quotas: { dir: '/' } } } as Job),
  ],
  ['lines of output', FILE, text => new OutputLines(() => {}).write(Buffer.from(text))],
]
for (const [what, bytes, read] of ofLines) {
  inSweep(`a hostile training's output does not hold up ${what}`, async () => {
    const { ms, text } = await slowest(hostile(bytes), read)

    assert.ok(ms < MOST_MS, `${ms} ms for ${text}`)
  })
}

test("what a hostile training prints at once, a hundred lines, does not hold up its run's reading", async () => {
  await using box = await sandbox({ '.trainer/x': 1 })
  const run = { modelsDir: box.path(), output: { progress() {} }, quotas: { dir: '/' } }
  const progress = new Progress({ ...job, run } as unknown as Job, 1)
  const complaints = ['not found: /1/1'.padEnd(LINE, '/1'), 'not found: '.padEnd(LINE, '1')]
  const texts = [...hostile(SHORT).filter((_, index) => index % 7 === 0), ...complaints]

  const { ms, text } = await slowest(texts, line => progress.takeLines(new Array<string>(110).fill(line)))
  progress.close()

  // 110 lines of a complaint are compared with a thousand names.
  assert.ok(ms < 5 * MOST_MS, `${ms} ms for ${text}`)
})

test("a hostile training's names do not hold up what is read from names", async () => {
  const read = (name: string) => {
    const known = name.replaceAll(/[/\0]/g, '-').slice(0, 255)
    for (const ask of [isStagingName, isBestName, isTelling, comparable]) ask(known)
    placeOf(new Belonging('/m').checkpointOf('/m/work/checkpoint-1', known))
    patternOf([known])
  }

  const { ms, text } = await slowest(hostile(255), read)

  assert.ok(ms < MOST_MS, `${ms} ms for ${text}`)
})

inSweep('hostile files that name a checkpoint, or are metadata, are read at once', async () => {
  await using box = await sandbox({ 'work/a.checkpoint': 4096, 'work/checkpoint-1/x': 1 })
  const names = ['checkpoint', 'latest', 'latest_checkpointed_iteration.txt', 'best_checkpoint']
  assert.ok(names.every(isPointerName))
  mkdirSync(box.path('read'))
  const texts = hostile(FILE).filter((_, index) => index % 5 === 0)
  const files = [
    ...names.map(name => `work/${name}`),
    'work/checkpoint-1/trainer_state.json',
    'read/metadata.json',
  ]
  const write = (text: string) => {
    for (const file of files) writeFileSync(box.path(file), text)
  }
  const read = async () => {
    await measure(box.path(), { prune: ['checkpoint-*/'] })
    readReported(box.path('read'))
  }

  const { ms, text } = await slowest(texts, read, write)

  assert.ok(ms < MOST_MS, `${ms} ms for ${text}`)
})

test.run()
