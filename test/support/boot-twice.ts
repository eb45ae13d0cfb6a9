import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { jobNames } from '../../lib/quotas.ts'
import { type BootedMachine, newMachine } from './booted-machine.ts'
import { debianImage } from './debian-image.ts'
import {
  builtPackage,
  eventsOf,
  installPackage,
  models,
  neverWait,
  publishedOn,
  service,
  showUnit,
  unitOf,
  untilDone,
} from './package-rig.ts'
import { root } from './places.ts'

/**
 * Install the package into an image of Debian, boot that, and boot it again: the main path of an appliance.
 *
 * @throws {Error} if it is not as it should be
 */
export async function bootTwice(release: 12 | 13): Promise<void> {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(release))

  const said = installPackage(machine, built.deb)
  const before = publishedOn(machine)
  neverWait(machine)
  await machine.powerOn()
  await untilDone(machine)

  assert.equal(before, [], 'nothing is trained in an image')
  assert.not.match(said, /^ransomeye-trainer: /m)
  assert.equal(publishedOn(machine), jobNames)
  machine.must('ransomeye-trainer', 'verify')
  const started = eventsOf(machine).filter(it => it.event === 'job.start')
  assert.equal(
    started.map(it => [it.job, it.guarantee]),
    jobNames.map(job => [job, 'watch+sandbox']),
  )
  assert.is(machine.must('systemctl', 'is-system-running'), 'running\n')
  const warnings = machine.must('journalctl', '--unit', service, '--priority', 'warning', '--output', 'cat')
  // The systemd of Debian 12 knows no growing delays, and says so.
  const expected = release === 12 ? /Unknown key name '(RestartSteps|RestartMaxDelaySec)'/ : /^$/
  assert.equal(
    warnings.split('\n').filter(line => line && !expected.test(line)),
    [],
  )

  copyFileSync(join(root, 'debian/tests/first-start'), machine.path('root/first-start'))
  machine.must('/root/first-start')

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
  const atBoot = costOf(machine, service)
  machine.must('systemctl', 'start', service)
  const again = costOf(machine, service)
  // The time that the machine, systemd and Node.js take by themselves.
  const unit = machine.must('systemctl', 'cat', service)
  const empty = unit
    .replace(/^ExecStart=.*$/m, 'ExecStart=/usr/bin/node --eval 0')
    .replace(/^Type=oneshot$/m, '$&\nRemainAfterExit=yes') // else systemd forgets it at once
  writeFileSync(machine.path('etc/systemd/system/empty.service'), empty)
  machine.must('systemctl', 'daemon-reload')
  machine.must('systemctl', 'start', 'empty.service')
  const beside = `an empty Node.js in such a unit ${costOf(machine, 'empty.service')}`
  console.log(`with nothing to train: a boot ${atBoot}; later ${again}; ${beside}`)
  console.log(machine.must('du', '--summarize', '--human-readable', models))
}

/** How long the process of a unit took, and what of a processor. */
function costOf(machine: BootedMachine, unit: string): string {
  const {
    ExecMainStartTimestampMonotonic: from,
    ExecMainExitTimestampMonotonic: to,
    CPUUsageNSec,
  } = showUnit(
    machine,
    unit,
    'ExecMainStartTimestampMonotonic',
    'ExecMainExitTimestampMonotonic',
    'CPUUsageNSec',
  )
  const ms = (Number(to) - Number(from)) / 1000
  return `${Math.round(ms)} ms (${Math.round(Number(CPUUsageNSec) / 1e6)} ms of processor)`
}
