import * as assert from 'uvu/assert'
import { ownDisk } from '../support/own-disk.ts'
import { askPublished, prunedWhileTraining, recipeRig, untilSaid, withPackages } from '../support/recipes.ts'
import { survivors } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'
import { hasLoopDevices } from '../support/volume-rig.ts'

const withTorch = withPackages(inSweep, 'torch', 'onnxscript')

withTorch(
  'two processes of torchrun with workers that load data, cut off by SIGTERM, go on from their newest checkpoint, and a retraining begins anew',
  async () => {
    // Three checkpoints of 12 MiB fit, and a fourth does not.
    await using rig = await recipeRig('torchrun', { maxDiskMb: 50, env: { SLOW_AFTER: '52' } })
    // What others write beside it decides when it is looked at.
    await using _disk = hasLoopDevices ? ownDisk(rig, 'ext4', 400) : undefined
    const cutOff = rig.start(['core', '--json'])
    await untilSaid(rig, cutOff, 'is slow now')
    cutOff.child.kill('SIGTERM')
    const { exitCode, events } = await cutOff.ended
    await until('nothing is left of them', () => !survivors(rig).length)
    rig.set({ env: {} })

    const resumed = await rig.run(['core', '--json'])
    const model = await askPublished(rig)
    const retrained = await rig.run(['core', '--retrain', '--json'])

    assert.is(exitCode, 143)
    for (const it of [events, retrained.events]) {
      const pruned = prunedWhileTraining(it).filter(name => name.endsWith('.checkpoint'))
      assert.is(pruned[0], 'step-000010.checkpoint')
    }
    assert.equal([resumed.exitCode, retrained.exitCode], [0, 0])
    assert.equal(rig.countIn(/trained one step$/).slice(1), [10, 60])
    assert.equal([model, await askPublished(rig)], [60, 60])
  },
)

test.run()
