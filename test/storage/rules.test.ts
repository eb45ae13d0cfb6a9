import * as assert from 'uvu/assert'
import { compileRules, type RuleOf } from '../../lib/storage/rules.ts'
import { test } from '../support/test.ts'

test('compileRules() allows checkpoints and temporary files at any depth, by their exact ending', async () => {
  const ruleOf = await compileRules('/core', {})

  for (const name of [
    'a.checkpoint',
    '.checkpoint',
    '-rf.checkpoint',
    'line\nbreak.checkpoint',
    'a\xff.checkpoint',
  ]) {
    assert.is(nameOf(ruleOf('/core/work/runs/1', name, 'file')), '*.checkpoint', name)
  }
  assert.is(nameOf(ruleOf('/core', 'a.tmp', 'file')), '*.tmp')
  for (const name of [
    'a.TMP',
    'a.tmp.onnx',
    'checkpoint',
    'acheckpoint',
    'a.checkpoints',
    'tmp',
    'model.onnx',
  ]) {
    assert.is(nameOf(ruleOf('/core/work', name, 'file')), undefined, name)
  }
  assert.is(nameOf(ruleOf('/core', 'a.tmp', 'folder')), undefined)
  assert.is(nameOf(ruleOf('/core/work', 'a.tmp', 'folder')), 'leftover')
  assert.is(nameOf(ruleOf('/core/work', 'a.checkpoint', 'folder')), '*.checkpoint')
})

test('compileRules() takes globs relative to the output folder and to the folder itself', async () => {
  const ruleOf = await compileRules('/core', { prune: ['checkpoint-*/', 'runs/**/*.pt', '*.bak', 'wörk*'] })

  assert.is(nameOf(ruleOf('/core/work', 'checkpoint-500', 'folder')), 'checkpoint-*/')
  assert.is(nameOf(ruleOf('/core', 'checkpoint-500', 'folder')), 'checkpoint-*/')
  assert.is(nameOf(ruleOf('/core/work/runs/1/2', 'a.pt', 'file')), 'runs/**/*.pt')
  assert.is(nameOf(ruleOf('/core/work/runs', '.hidden.pt', 'file')), 'runs/**/*.pt')
  assert.is(nameOf(ruleOf('/core/work/runs/line\nbreak', 'a.pt', 'file')), 'runs/**/*.pt')
  assert.is(nameOf(ruleOf('/core/work', Buffer.from('wörk-1').toString('latin1'), 'folder')), 'wörk*')

  assert.is(nameOf(ruleOf('/core/work', 'checkpoint-500', 'file')), undefined)
  assert.is(nameOf(ruleOf('/core/work/deeper', 'checkpoint-500', 'folder')), undefined)
  assert.is(nameOf(ruleOf('/core/work/deeper', 'a.bak', 'file')), undefined)
  assert.is(nameOf(ruleOf('/core/work', 'a.pt', 'file')), undefined)
})

test('compileRules() never allows the output folder or its temporary folder as one', async () => {
  const ruleOf = await compileRules('/core', { prune: ['*', '**', 'work', 'work/tmp', 'tmp/'] })

  assert.is(nameOf(ruleOf('/core', 'work', 'folder')), undefined)
  assert.is(nameOf(ruleOf('/core/work', 'tmp', 'folder')), undefined)
  assert.is(nameOf(ruleOf('/core/work', 'temp', 'folder')), '*')
})

function nameOf(rule: ReturnType<RuleOf>): string | undefined {
  return typeof rule === 'object' ? rule.name : rule
}

test('compileRules() names nothing below a path that is longer than any program makes', async () => {
  const ruleOf = await compileRules('/core', { prune: ['**/epoch-*'], keepGlobs: ['**/best*'] })
  const [deep, deeper] = [50, 100].map(levels => `/core/work${`/${'d'.repeat(199)}`.repeat(levels)}`)

  const found = [deep!, deeper!].map(folder =>
    ['epoch-1', 'a.checkpoint', 'a.tmp', 'best'].map(name => nameOf(ruleOf(folder, name, 'file'))),
  )

  assert.equal(found, [
    ['**/epoch-*', '*.checkpoint', '*.tmp', 'kept'],
    [undefined, undefined, undefined, undefined],
  ])
})

test.run()
