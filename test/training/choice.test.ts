import { rmSync, utimesSync } from 'node:fs'
import { basename } from 'node:path'
import * as assert from 'uvu/assert'
import { measure } from '../../lib/storage/measure.ts'
import { Choice } from '../../lib/training/choice.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const PRUNE = ['*.{keras,h5,pt}']

test('the newest checkpoint of each pattern of names goes only after all older ones, whatever their times', async () => {
  await using box = await boxOf([
    'model-01-0.9.keras',
    'model-02-0.5.keras',
    'epoch03.weights.h5',
    'epoch04.weights.h5',
    'epoch05.weights.h5',
  ])

  assert.equal(await chosenIn(box), ['model-01-0.9.keras', 'epoch03.weights.h5', 'epoch04.weights.h5'])
})

test('the newest ones of patterns go next, and the newest complete one of all never', async () => {
  await using box = await boxOf(['a-2.pt', 'model-02-0.5.keras', 'epoch05.weights.h5'])

  assert.equal(await chosenIn(box), ['a-2.pt', 'model-02-0.5.keras'])
})

test('a checkpoint that is being written is not taken for the newest of its pattern', async () => {
  await using box = await boxOf([
    'model-01.keras',
    'a-1.pt',
    'a-2.pt',
    'model-02.keras',
    'epoch05.weights.h5',
  ])
  const choice = choiceIn(box)
  const sizes = await measure(box.dir, { prune: PRUNE })
  for (const { set } of sizes.prunable) set.bytes -= set.path.endsWith('model-02') ? 10 : 0
  choice.noteSizes(sizes)

  // model-02 has grown until just now.
  utimesSync(box.path('work/model-02.keras'), Date.now() / 1000, Date.now() / 1000)
  const sets = await choice.choose(await measure(box.dir, { prune: PRUNE }), false)

  assert.equal(
    sets.map(({ path }) => basename(path)),
    ['a-1'],
  )
})

test('what is pointed to goes after the newest ones of patterns, and as the last resort alone', async () => {
  await using box = await boxOf(['best.pt', 'epoch05.weights.h5'])

  assert.equal(await chosenIn(box), [])
  assert.equal(await chosenIn(box, true), ['best.pt'])
})

test('what may be about to get its own name goes after older checkpoints, and what is temporary for long before them', async () => {
  await using box = await boxOf([
    'old.tmp',
    'a-1.pt',
    'a-2.pt',
    'model-01.keras',
    'epoch05.weights.h5',
    'new.tmp',
  ])
  const choice = choiceIn(box)
  const now = Date.now() / 1000 + 1
  utimesSync(box.path('work/new.tmp'), now, now)
  const choose = async () =>
    (await choice.choose(await measure(box.dir, { prune: PRUNE }), false)).flatMap(({ entries }) =>
      entries.map(({ name }) => name),
    )
  const chosen: string[][] = []

  for (let rest = await choose(); rest.length; rest = await choose()) {
    chosen.push(rest)
    for (const name of rest) rmSync(box.path('work', name))
  }

  assert.equal(chosen, [['old.tmp', 'a-1.pt'], ['new.tmp'], ['a-2.pt', 'model-01.keras']])
})

/** Checkpoints of one size, the oldest first, seconds apart. */
async function boxOf(names: string[]): Promise<Sandbox> {
  const box = await sandbox(Object.fromEntries(names.map(name => [`work/${name}`, 9000])))
  for (const [index, name] of names.entries()) {
    const seconds = Date.now() / 1000 - 100 + index
    utimesSync(box.path(`work/${name}`), seconds, seconds)
  }
  return box
}

function choiceIn(box: Sandbox): Choice {
  const training = { processes: () => [] } as unknown as ConstructorParameters<typeof Choice>[0]['training']
  return new Choice({ dir: box.dir, rules: { prune: PRUNE }, training, onPrune() {}, onFault() {} })
}

async function chosenIn(box: Sandbox, isLast = false): Promise<string[]> {
  const sets = await choiceIn(box).choose(await measure(box.dir, { prune: PRUNE }), isLast)
  return sets.flatMap(({ entries }) => entries.map(({ name }) => name))
}

test.run()
