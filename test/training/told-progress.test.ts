import * as assert from 'uvu/assert'
import { ToldProgress } from '../../lib/training/told-progress.ts'
import { test } from '../support/test.ts'

/** The share that is told after these lines, in hundredths. */
function percentAfter(...lines: string[]): number | undefined {
  const told = new ToldProgress()
  for (const line of lines) told.take(line, 0)
  const share = told.at(0)?.share
  return share === undefined ? undefined : Math.round(share * 1000) / 10
}

const tellings: [what: string, lines: string[], percent: number][] = [
  ['a line made for it', ['RANSOMEYE_PROGRESS 0.42'], 42],
  ['a line made for it, behind the words of a logger', ['INFO:root:RANSOMEYE_PROGRESS 0.42'], 42],
  ['a line made for it, as Python writes small numbers', ['RANSOMEYE_PROGRESS 1e-02'], 1],
  ['a line made for it, in percent', ['RANSOMEYE_PROGRESS: 42 %'], 42],
  ['tqdm', [' 42%|████▏     | 42/100 [00:01<00:02, 29.52it/s]'], 42],
  ['tqdm, by its counts', ['train:   1%|▏         | 125/10000 [00:01<02:12]'], 1.3],
  ['tqdm without counts', ['Epoch loop:  7%|▋'], 7],
  ['transformers', [`  3%|▎         | 30/1000 [00:10<05:23,  3.00it/s]`, `{'loss': 0.5, 'epoch': 0.1}`], 3],
  ['Lightning', ['Epoch 3:  42%|████▏     | 197/469 [00:10<00:14, 19.10it/s, v_num=0]'], 42],
  ["Lightning's rich bar", ['Epoch 3/39 ━━━━━━━━━━━━━━━╸ 234/468 0:00:01 • 0:00:02 150.00it/s'], 6.4],
  ['Keras, an epoch that begins', ['Epoch 3/40'], 5],
  [
    'Keras, in an epoch',
    ['Epoch 3/40', ' 120/480 ━━━━━━━━━━━━━━━━━━━━ 1s 3ms/step - accuracy: 0.9108 - loss: 0.3'],
    5.6,
  ],
  ['an older Keras', ['Epoch 3/40', '120/480 [======>.......................] - ETA: 1s - loss: 0.3'], 5.6],
  ['Keras without epochs', ['120/480 ━━━━━━━━━━━━━━━━━━━━ 1s 3ms/step'], 25],
  ['an epoch that has ended', ['epoch 3/40  loss 0.1234  holdout 0.911'], 7.5],
  ['an epoch in brackets', ['Epoch [3/40], loss: 0.12'], 7.5],
  ['an epoch of others', ['Epoch 3 of 40: val_loss=0.12'], 7.5],
  ['steps in an epoch', ['Epoch [3/40], Step [120/480], Loss: 0.3'], 5.6],
  [
    'Ultralytics',
    ['      3/40      2.5G      1.2      0.9        12        640:  25%|██▌       | 120/480 [00:05<00:15]'],
    5.6,
  ],
  [
    'Megatron',
    [' iteration      100/  5000 | consumed samples:        25600 | elapsed time per iteration'],
    2,
  ],
  ['a step', ['step 20/80: loss 0.3'], 25],
]
for (const [what, lines, percent] of tellings) {
  test(`ToldProgress understands ${what}`, () => {
    assert.is(percentAfter(...lines), percent)
  })
}

const others = [
  'accuracy 42% | loss 0.3',
  'loss 0.5 (3/40 classes are empty)',
  'reading /data/epoch/3/40.bin',
  'recall 42%',
  'RANSOMEYE_PROGRESS 42',
  'RANSOMEYE_PROGRESS nan',
  '2026/11/29 02:31:06 training',
  'epoch 41/40',
  'Epoch 3: loss 0.1',
  '',
]
for (const line of others) {
  test(`ToldProgress takes "${line}" for no progress`, () => {
    assert.is(percentAfter(line), undefined)
  })
}

test('ToldProgress believes a line made for it more than epochs, and epochs more than steps', () => {
  assert.is(percentAfter('step 9/10', 'epoch 1/4 loss 0.3', 'step 1/10'), 25)
  assert.is(percentAfter('epoch 1/4 loss 0.3', 'RANSOMEYE_PROGRESS 0.5', 'epoch 2/4 loss 0.3'), 50)
})

test('ToldProgress keeps the outer bar while an inner one comes and goes', () => {
  const outer = ' 10%|#         | 100/1000 [00:10<01:30]'
  const inner = ['  0%|          | 0/12 [00:00<?]', '100%|##########| 12/12 [00:01<00:00]']

  assert.is(percentAfter(outer, ...inner), 10)
  assert.is(percentAfter(...inner, 'evaluated', outer), 10)
})

test('ToldProgress estimates the time left by the pace since it was first told, and counts it down', () => {
  const told = new ToldProgress()
  told.take('epoch 10/40 loss 1', 0) // resumed
  assert.equal(told.at(0), { share: 0.25 })
  told.take('epoch 20/40 loss 1', 60_000)

  assert.equal(told.at(60_000), { share: 0.5, secondsLeft: 120 })
  assert.equal(told.at(90_000), { share: 0.5, secondsLeft: 90 })
  assert.equal(told.at(600_000), { share: 0.5, secondsLeft: 0 })
})

test('ToldProgress begins anew with a bar that begins anew', () => {
  const told = new ToldProgress()
  told.take('Epoch 0:  50%|#####     | 50/100', 0)
  told.take('Epoch 0: 100%|##########| 100/100', 50_000)
  told.take('Epoch 1:   0%|          | 0/100', 50_000)
  told.take('Epoch 1:  10%|#         | 10/100', 60_000)

  assert.equal(told.at(60_000), { share: 0.1, secondsLeft: 90 })
})

test('ToldProgress goes when it is at its end and other lines come, or those do not tell it for long', () => {
  const told = new ToldProgress()
  told.take('100%|##########| 12/12', 0)
  assert.is(told.at(0)?.share, 1)
  told.take('exporting', 1)
  assert.is(told.at(1), undefined)

  told.take('RANSOMEYE_PROGRESS 0.5', 10_000)
  assert.is(told.at(10_000_000)?.share, 0.5) // nothing else was said
  told.take('exporting', 50_000)
  assert.is(told.at(60_000)?.share, 0.5)
  assert.is(told.at(71_000), undefined)
})

test('ToldProgress keeps what is told every hour while other lines come every second', () => {
  const told = new ToldProgress()
  const hour = 3_600_000
  told.take('epoch 1/40 loss 1', 0)
  told.take('epoch 2/40 loss 1', hour)
  told.take('logged', 2 * hour)

  assert.is(told.at(2 * hour)?.share, 0.05)
  told.take('logged', 5 * hour)
  assert.is(told.at(5 * hour), undefined)
})

test.run()
