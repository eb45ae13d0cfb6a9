import * as assert from 'uvu/assert'
import {
  askPublished,
  frameworkMs,
  prunedWhileTraining,
  recipeRig,
  withPackages,
} from '../support/recipes.ts'
import { survivors } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const withTransformers = withPackages(inSweep, 'torch', 'transformers', 'accelerate', 'onnxscript')

/** Three checkpoints of 12 MiB fit, and a fourth does not. */
const maxDiskMb = 50

const withoutBest = (program: string) => program.replace(/, eval_strategy=.*load_best_model_at_end=True/, '')

const CASES = [
  { signal: 'SIGTERM', what: 'with its best checkpoint', edit: (it: string) => it, published: 20 },
  { signal: 'SIGKILL', what: 'without a best checkpoint', edit: withoutBest, published: 60 },
] as const

for (const { signal, what, edit, published } of CASES) {
  withTransformers(
    `a Trainer ${what}, cut off by ${signal} in a save, goes on from the whole checkpoint before; published, it begins anew`,
    async () => {
      await using rig = await recipeRig('huggingface', { maxDiskMb }, edit)
      rig.set({ env: { HOLD_IN: 'checkpoint-50/optimizer.pt' } })
      const cutOff = rig.start(['core', '--json'])
      await until('it is in a save', () => rig.log().includes('holding in a save'), frameworkMs)
      cutOff.child.kill(signal)
      const { exitCode } = await cutOff.ended
      await until('nothing is left of it', () => !survivors(rig).length)
      const left = rig.names(/^checkpoint-(\d+)$/).sort()
      rig.set({ env: {} })

      const refused = [await rig.run(['core']), await rig.run(['core'])]
      const resumed = await rig.run(['core', '--json'])

      assert.is(exitCode, signal === 'SIGTERM' ? 143 : null)
      assert.equal(left, ['20', '30', '40', '50'])
      const codes = [...refused, resumed].map(it => it.exitCode)
      assert.equal(codes, [1, 1, 0])
      const [, oldest] = prunedWhileTraining(resumed.events) // after what was set aside
      assert.is(oldest, published === 20 ? 'checkpoint-30' : 'checkpoint-20')
      assert.equal(rig.countIn(/trained one step$/), [50, 0, 0, 20])
      const pruned = resumed.events.filter(it => /^(storage\.prune|train\.freeze|warning)$/.test(it.event))
      assert.is(await askPublished(rig), published, JSON.stringify(pruned, null, 1))

      const retrained = await rig.run(['core', '--retrain', '--json'])

      assert.is(retrained.exitCode, 0)
      assert.is(prunedWhileTraining(retrained.events)[0], 'checkpoint-10')
      assert.equal(rig.countIn(/trained one step$/), [50, 0, 0, 20, 60])
      assert.is(await askPublished(rig), published)
    },
  )
}

test.run()
