import * as assert from 'uvu/assert'
import { PatternsOfNames, patternOf } from '../../lib/storage/patterns.ts'
import { test } from '../support/test.ts'

const numbers = [1, 2, 10]
const LAYOUTS: [what: string, paths: string[], glob: string][] = [
  [
    'folders of checkpoints, whatever varies in them',
    numbers.flatMap(n => [
      `checkpoints/checkpoint_${n}/optimizer.bin`,
      `checkpoints/checkpoint_${n}/layer_${n}.bin`,
    ]),
    'checkpoints/checkpoint_*',
  ],
  [
    'a folder of another name with a number that varies',
    numbers.map(n => `saves/model@${n}/weights`),
    'saves/model@*',
  ],
  ['a folder that is a number alone', numbers.map(n => `orbax/${n}/state`), 'orbax/[0-9]*'],
  [
    'files of checkpoints in a folder of a run',
    [1, 2].flatMap(v => numbers.map(n => `run_${v}/epoch=${n}.ckpt`)),
    'run_*/epoch=*.ckpt',
  ],
  ['files in a folder whose number does not vary', numbers.map(n => `version_0/w${n}.pt`), 'version_*/w*.pt'],
  [
    'folders of checkpoints below those of runs',
    [1, 2].flatMap(v => numbers.map(n => `run_${v}/checkpoint-${n}/a`)),
    'run_*/checkpoint-*',
  ],
  ['the outermost of nested folders', numbers.map(n => `step_${n}/iter_${n}/a`), 'step_*'],
  [
    'a single checkpoint with numbered files',
    numbers.map(n => `ckpt-7/custom_checkpoint_${n}.pkl`),
    'ckpt-*',
  ],
  ['plain files', numbers.map(n => `epoch=${n}.ckpt`), 'epoch=*.ckpt'],
  ['a file without a number', ['deep/best.pt'], 'deep/best.pt'],
]
for (const [what, paths, glob] of LAYOUTS) {
  test(`the glob of checkpoints is found: ${what}`, () => {
    const patterns = new PatternsOfNames(100)
    for (const path of paths) patterns.add(path.split('/'))

    for (const path of paths) assert.is(patterns.checkpointOf(path.split('/')), glob)
  })
}

test('of more patterns than are told apart none is taken to vary', () => {
  const patterns = new PatternsOfNames(1)
  for (const n of numbers) patterns.add(['runs', `a${n}`, 'x'])
  for (const n of numbers) patterns.add(['runs', `b${n}`, 'x'])

  assert.is(patterns.checkpointOf(['runs', 'a1', 'x']), 'runs/a*')
  assert.is(patterns.checkpointOf(['runs', 'b1', 'x']), 'runs/b*/x')
})

test('patternOf() takes a fraction for one number, and an ending as it is', () => {
  assert.is(patternOf(['w.05-0.42.h5']), 'w.*-*.h5')
})

test.run()
