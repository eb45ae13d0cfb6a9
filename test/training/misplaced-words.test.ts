import * as assert from 'uvu/assert'
import { explainMisplaced } from '../../lib/training/misplaced-words.ts'
import { root } from '../support/places.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const train = ['node', '--import', 'tsx', 'scripts/train/core.ts']

test('explainMisplaced() names the file of this project that a copied quotas file does not find', async () => {
  await using box = await sandbox()

  const words = explainMisplaced(train, box.dir)

  assert.match(words ?? '', `in the folder of its quotas file, ${box.dir}`)
  assert.match(words ?? '', 'there is no scripts/train/core.ts')
  assert.match(words ?? '', `put the quotas file there`)
})

test('explainMisplaced() says nothing of a command that finds its files, or names none of this project', async () => {
  await using box = await sandbox({ 'scripts/train/core.ts': 1 })
  await using empty = await sandbox()

  assert.is(explainMisplaced(train, root), undefined)
  assert.is(explainMisplaced(train, box.dir), undefined)
  assert.is(explainMisplaced(['python3', 'trainer/missing.py'], empty.dir), undefined)
  assert.is(explainMisplaced(['bash', `${root}/scripts/train/core.ts`], empty.dir), undefined)
  assert.is(explainMisplaced(['tasks.ts'], empty.dir), undefined)
})

test.run()
