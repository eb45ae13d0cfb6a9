import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { jobNames } from '../../lib/quotas.ts'
import { newMachine, withBoot } from '../support/booted-machine.ts'
import { debianImage } from '../support/debian-image.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import {
  builtPackage,
  eventsOf,
  installPackage,
  models,
  publishedOn,
  setTraining,
  untilDone,
} from '../support/package-rig.ts'
import { test } from '../support/test.ts'

const CUTS = 10
/** Some come before a training, or after the last. */
const MOST_CUTS = 4 * CUTS

/** A training of some seconds with checkpoints, which makes another model each time it is asked to. */
const training = `
for (let epoch = 0; epoch < 10; epoch++) {
  fs.writeFileSync(dir + '/epoch-' + epoch + '.checkpoint', Buffer.alloc(2 ** 20, epoch))
  await sleep(20)
}
const before = process.env.RANSOMEYE_MODEL_DIR + '/' + job + '.onnx'
const isOne = fs.existsSync(before) && fs.readFileSync(before).equals(fs.readFileSync('one.onnx'))
fs.copyFileSync(isOne ? 'two.onnx' : 'one.onnx', dir + '/' + job + '.onnx')
`

withBoot(
  'after each of ten power cuts during a training the models are the old or the new ones',
  async () => {
    const versions = ['one', 'two'].map(producer => onnxModel({ producer }))
    const built = await builtPackage()
    await using machine = await newMachine(await debianImage(13))
    setTraining(machine, training)
    installPackage(machine, built.deb, '--option', 'Dpkg::Options::=--force-confold')

    let wasCut = 0
    for (let cut = 0; wasCut < CUTS && cut < MOST_CUTS; cut++) {
      await machine.powerOn()
      if (cut > 0) {
        // Whatever the cut left of the first training, this boot has trained; it is a retraining that is cut then.
        await untilDone(machine)
        assert.equal(publishedOn(machine), jobNames)
        machine.must('ransomeye-trainer', 'verify')
        machine.must('systemctl', 'start', '--no-block', 'ransomeye-retrain.service')
      }
      const whenMs = Math.round(Math.random() * 3000)
      await delay(whenMs)
      const events = eventsOf(machine)
      const run = events.slice(events.findLastIndex(it => it.event === 'run.start'))
      const hasBegun = run.some(it => it.event === 'train.start')
      const isTraining = hasBegun && !run.some(it => it.event === 'run.done')
      await machine.cutPower()

      if (isTraining) wasCut++
      for (const job of jobNames) {
        const file = machine.path(models, job, `${job}.onnx`)
        if (cut === 0 && !existsSync(file)) continue
        const model = readFileSync(file)
        assert.ok(
          versions.some(version => version.equals(model)),
          `${job}, cut ${whenMs} ms after its start`,
        )
      }
    }
    await machine.powerOn()
    await untilDone(machine)

    assert.is(wasCut, CUTS, 'cuts during a training')
    assert.equal(publishedOn(machine), jobNames)
    machine.must('ransomeye-trainer', 'verify')
  },
)

test.run()
