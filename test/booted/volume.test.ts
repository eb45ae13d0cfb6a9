import { writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { jobNames } from '../../lib/quotas.ts'
import { canBootDebian, newMachine } from '../support/booted-machine.ts'
import { debianImage } from '../support/debian-image.ts'
import {
  builtPackage,
  eventsOf,
  installPackage,
  publishedOn,
  publishes,
  setTraining,
  untilDone,
} from '../support/package-rig.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'
import { hasLoopDevices } from '../support/volume-rig.ts'

skipUnless(
  test,
  canBootDebian && hasLoopDevices,
  'needs loop devices, and what boots a machine',
)('a volume is mounted at boot, before the training that it bounds', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(13, 'e2fsprogs', 'faketime'))
  setTraining(machine, publishes)
  writeFileSync(machine.path('usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  await machine.powerOn({ loopDevices: true })
  installPackage(machine, built.deb, '--option', 'Dpkg::Options::=--force-confold')
  const made = machine.must('ransomeye-trainer', 'volume', 'create', 'core', '--owner', 'ransomeye')
  machine.must('sh', '-c', /to mount it at boot: (systemctl enable .*)$/m.exec(made)?.[1] ?? 'false')
  await machine.shutDown()

  await machine.powerOn({ loopDevices: true })
  await untilDone(machine)

  const guarantees = eventsOf(machine).flatMap(it => (it.event === 'job.start' ? [it.guarantee] : []))
  assert.equal(guarantees, ['kernel+sandbox', 'watch+sandbox', 'watch+sandbox'])
  machine.must('ransomeye-trainer', 'verify')

  const said = machine.must('ransomeye-trainer', 'volume', 'remove', 'core')
  const remedy = /disable it: (systemctl .*)$/m.exec(said)?.[1]
  machine.must('sh', '-c', remedy ?? 'false')
  await machine.shutDown()
  await machine.powerOn()
  await untilDone(machine)

  const last = eventsOf(machine).findLast(it => it.event === 'run.done')
  assert.is(last?.event === 'run.done' && last.exitCode, 0)
  assert.equal(publishedOn(machine), jobNames)
})

test.run()
