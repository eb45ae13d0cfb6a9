import * as assert from 'uvu/assert'
import { askPublished, prunedWhileTraining, recipeRig, untilSaid, withPackages } from '../support/recipes.ts'
import { survivors } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const withTransformers = withPackages(inSweep, 'torch', 'transformers', 'accelerate', 'onnxscript')

/** Three checkpoints of 12 MiB fit, and a fourth does not. */
const maxDiskMb = 50
/** The step whose model has the least loss; see torch_network.py. */
const BEST = 20

withTransformers(
  'a Trainer with its best checkpoint, cut off by SIGTERM in a save, goes on from the whole checkpoint before; published, it begins anew',
  async () => {
    await using rig = await recipeRig('huggingface', { maxDiskMb })
    rig.set({ env: { HOLD_IN: 'checkpoint-50/optimizer.pt' } })
    const cutOff = rig.start(['core', '--json'])
    await untilSaid(rig, cutOff, 'holding in a save')
    cutOff.child.kill('SIGTERM')
    const { exitCode } = await cutOff.ended
    await until('nothing is left of it', () => !survivors(rig).length)
    const left = rig.names(/^checkpoint-(\d+)$/).sort()
    rig.set({ env: {} })

    const refused = [await rig.run(['core']), await rig.run(['core'])]
    const resumed = await rig.run(['core', '--json'])

    assert.is(exitCode, 143)
    assert.equal(left, ['20', '30', '40', '50'])
    const codes = [...refused, resumed].map(it => it.exitCode)
    assert.equal(codes, [1, 1, 0])
    const [, oldest] = prunedWhileTraining(resumed.events) // after what was set aside
    assert.is(oldest, 'checkpoint-30')
    assert.equal(rig.countIn(/trained one step$/), [50, 0, 0, 20])
    const pruned = resumed.events.filter(it => /^(storage\.prune|train\.freeze|warning)$/.test(it.event))
    assert.is(await askPublished(rig), BEST, JSON.stringify(pruned, null, 1))

    const retrained = await rig.run(['core', '--retrain', '--json'])

    assert.is(retrained.exitCode, 0)
    assert.is(prunedWhileTraining(retrained.events)[0], 'checkpoint-10')
    assert.equal(rig.countIn(/trained one step$/), [50, 0, 0, 20, 60])
    assert.is(await askPublished(rig), BEST)
  },
)

test.run()
