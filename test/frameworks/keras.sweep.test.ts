import * as assert from 'uvu/assert'
import { askPublished, prunedWhileTraining, recipeRig, untilSaid, withPackages } from '../support/recipes.ts'
import { survivors } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const withKeras = withPackages(inSweep, 'keras', 'torch', 'onnxscript')

withKeras(
  'Keras, cut off by SIGKILL, goes on from its backup; its best model is published, and a retraining begins anew',
  async () => {
    // Three checkpoints of 12 MiB fit beside the best one and the backup of 4, and a fourth does not.
    await using rig = await recipeRig('keras', { maxDiskMb: 62 })
    const cutOff = rig.start(['core', '--json'])
    await untilSaid(rig, cutOff, 'Epoch 8/12')
    cutOff.child.kill('SIGKILL')
    const { exitCode, events } = await cutOff.ended
    await until('nothing is left of it', () => !survivors(rig).length)

    const resumed = await rig.run(['core', '--json'])
    const model = await askPublished(rig)
    const retrained = await rig.run(['core', '--retrain', '--json'])

    assert.is(exitCode, null)
    for (const it of [events, retrained.events]) {
      const pruned = prunedWhileTraining(it).filter(name => /.\.(keras|h5|json)$/.test(name))
      assert.is(pruned[0], 'weights.01.keras')
      assert.equal(
        pruned.filter(name => !/^weights\.\d\d\.keras$/.test(name)),
        [],
      )
    }
    assert.equal([resumed.exitCode, retrained.exitCode], [0, 0])
    assert.equal(rig.countIn(/Epoch \d+\/12/), [8, 5, 12])
    assert.equal([model, await askPublished(rig)], [20, 20])
  },
)

test.run()
