import * as assert from 'uvu/assert'
import { jobNames } from '../../lib/quotas.ts'
import { newMachine, withBoot } from '../support/booted-machine.ts'
import { debianImage } from '../support/debian-image.ts'
import {
  builtPackage,
  eventsOf,
  installPackage,
  models,
  neverWait,
  publishedOn,
  service,
  unitOf,
  untilDone,
} from '../support/package-rig.ts'
import { test } from '../support/test.ts'

withBoot(
  'an image with the package boots into three valid models, and its next boot leaves them alone',
  async () => {
    const built = await builtPackage()
    await using machine = await newMachine(await debianImage(13))

    const said = installPackage(machine, built.deb)
    const before = publishedOn(machine)
    neverWait(machine)
    await machine.powerOn()
    await untilDone(machine)

    assert.equal(before, [], 'nothing is trained in an image')
    assert.not.match(said, /warning|error/i)
    assert.equal(publishedOn(machine), jobNames)
    machine.must('ransomeye-trainer', 'verify')
    const started = eventsOf(machine).filter(it => it.event === 'job.start')
    assert.equal(
      started.map(it => [it.job, it.guarantee]),
      jobNames.map(job => [job, 'watch+sandbox']),
    )
    assert.is(machine.must('systemctl', 'is-system-running'), 'running\n')
    const warnings = machine.must('journalctl', '--unit', service, '--priority', 'warning', '--output', 'cat')
    assert.is(warnings, '')

    const seen = eventsOf(machine).length
    await machine.shutDown()
    await machine.powerOn()
    await untilDone(machine)

    const [start, ...rest] = eventsOf(machine).slice(seen)
    assert.is(start?.event, 'run.start')
    assert.equal(
      rest.filter(it => it.event === 'job.skip').map(it => it.job),
      jobNames,
    )
    assert.is(unitOf(machine, 'Result').Result, 'success')
    assert.is(machine.must('systemctl', 'is-system-running'), 'running\n')
    const times = unitOf(
      machine,
      'ExecMainStartTimestampMonotonic',
      'ExecMainExitTimestampMonotonic',
      'CPUUsageNSec',
    )
    const [from, to] = Object.values(times).map(Number)
    console.log(
      `a boot with nothing to train: ${(to! - from!) / 1000} ms, ${Number(times.CPUUsageNSec) / 1e6} ms of processor`,
    )
    console.log(machine.must('du', '--summarize', '--human-readable', models))
  },
)

test.run()
