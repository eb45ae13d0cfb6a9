import { readFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { prunedWhileTraining, recipeRig, untilSaid, withPackages } from '../support/recipes.ts'
import { survivors } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const withTensorflow = withPackages(inSweep, 'tensorflow')

withTensorflow(
  "TensorFlow's checkpoints of two files fill the quota and go as one; cut off by SIGTERM it goes on from the newest, and a retraining begins anew",
  async () => {
    // Three checkpoints of 12 MiB fit, and a fourth does not.
    await using rig = await recipeRig('tensorflow', { maxDiskMb: 50, env: { SLOW_AFTER: '52' } })
    const cutOff = rig.start(['core', '--json'])
    await untilSaid(rig, cutOff, 'is slow now')
    cutOff.child.kill('SIGTERM')
    const { exitCode, events } = await cutOff.ended
    await until('nothing is left of it', () => !survivors(rig).length)
    const halves = [/^(ckpt-\d+)\.index$/, /^(ckpt-\d+)\.data-00000-of-00001$/].map(it =>
      rig.names(it).sort(),
    )
    const pointer = readFileSync(rig.path('models/core/work/checkpoint'), 'utf8')
    rig.set({ env: {} })

    const resumed = await rig.run(['core', '--json'])
    const retrained = await rig.run(['core', '--retrain', '--json'])

    assert.is(exitCode, 143)
    assert.ok(halves[0]!.includes('ckpt-50'))
    assert.equal(halves[0], halves[1])
    assert.match(pointer, 'model_checkpoint_path: "ckpt-50"')
    for (const it of [events, retrained.events]) {
      const pruned = prunedWhileTraining(it).filter(name => name.startsWith('ckpt-'))
      assert.equal(pruned.slice(0, 2), ['ckpt-10.data-00000-of-00001', 'ckpt-10.index'])
      assert.is(pruned.length % 2, 0)
    }
    assert.equal([resumed.exitCode, retrained.exitCode], [0, 0])
    assert.equal(rig.countIn(/trained one step$/).slice(1), [10, 60])
    assert.ok(retrained.events.some(it => it.event === 'model.publish' && it.path.endsWith('core.tflite')))
  },
)

test.run()
