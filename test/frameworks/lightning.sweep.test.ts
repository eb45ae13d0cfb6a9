import { readlinkSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { askPublished, prunedWhileTraining, recipeRig, untilSaid, withPackages } from '../support/recipes.ts'
import { survivors } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const withLightning = withPackages(inSweep, 'torch', 'lightning', 'onnxscript')

withLightning(
  'Lightning, cut off by SIGTERM, goes on from the checkpoint that its link names; its best one is published, and a retraining begins anew',
  async () => {
    // Three steady checkpoints of 12 MiB fit beside the best one, and a fourth does not.
    await using rig = await recipeRig('lightning', { maxDiskMb: 62, env: { SLOW_AFTER: '52' } })
    const cutOff = rig.start(['core', '--json'])
    await untilSaid(rig, cutOff, 'is slow now')
    cutOff.child.kill('SIGTERM')
    const { exitCode, events } = await cutOff.ended
    await until('nothing is left of it', () => !survivors(rig).length)
    const last = readlinkSync(rig.path('models/core/work/last.ckpt'))
    rig.set({ env: {} })

    const resumed = await rig.run(['core', '--json'])
    const model = await askPublished(rig)
    const retrained = await rig.run(['core', '--retrain', '--json'])

    assert.is(exitCode, 143)
    assert.match(last, /step=50\.ckpt$/)
    for (const it of [events, retrained.events]) {
      const pruned = prunedWhileTraining(it).filter(name => name.endsWith('.ckpt'))
      assert.is(pruned[0], 'epoch=0-step=10.ckpt')
      assert.not(pruned.includes('best-step=20.ckpt'))
    }
    assert.equal([resumed.exitCode, retrained.exitCode], [0, 0])
    assert.equal(rig.countIn(/trained one step$/).slice(1), [10, 60])
    assert.equal([model, await askPublished(rig)], [20, 20])
  },
)

test.run()
