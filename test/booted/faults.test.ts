import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import * as assert from 'uvu/assert'
import { jobNames } from '../../lib/quotas.ts'
import {
  type BootedMachine,
  canBootDebian,
  hasMemoryGroups,
  newMachine,
  withBoot,
} from '../support/booted-machine.ts'
import { debianImage } from '../support/debian-image.ts'
import {
  builtPackage,
  eventsOf,
  goesOn,
  installPackage,
  models,
  outputOf,
  processesOf,
  publishedOn,
  publishes,
  service,
  setTraining,
  unitOf,
  untilDone,
  untilReady,
} from '../support/package-rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

/** A machine with the package and this training, still off. */
async function machineWith(training: string, top: Record<string, unknown> = {}): Promise<BootedMachine> {
  const machine = await newMachine(await debianImage(13, 'e2fsprogs', 'faketime'))
  setTraining(machine, training, top)
  installPackage(machine, (await builtPackage()).deb, '--option', 'Dpkg::Options::=--force-confold')
  return machine
}

/** Change the service as an administrator does. */
function addDropIn(machine: BootedMachine, ...lines: string[]): void {
  const file = machine.path('etc/systemd/system/ransomeye-trainer.service.d/ours.conf')
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, ['[Service]', ...lines, ''].join('\n'))
}

/** Have it try again in a second, where it would in minutes. */
const SOON = ['RestartSec=1s', 'RestartMaxDelaySec=2s']

function exitCodes(machine: BootedMachine): number[] {
  return eventsOf(machine).flatMap(it => (it.event === 'run.done' ? [it.exitCode] : []))
}

withBoot('a stop and a restart during a training leave nothing behind', async () => {
  await using machine = await machineWith(
    `for (const detached of [false, true]) spawn('sleep', ['1000'], { detached, env: {} })\n${goesOn}`,
  )
  await machine.powerOn()
  await untilReady(machine)
  const before = processesOf(machine)

  machine.must('systemctl', 'restart', '--no-block', service)
  const again = await until('another run trains', () => {
    const now = processesOf(machine)
    return exitCodes(machine).length === 1 && now.length >= before.length ? now : undefined
  })
  machine.must('systemctl', 'stop', service)

  assert.equal(
    before.filter(pid => again.includes(pid)),
    [],
  )
  assert.equal(processesOf(machine), [])
  assert.not.match(machine.must('ps', '-e', '-o', 'args'), /sleep 1000|train\.mjs/)
  assert.equal(exitCodes(machine), [143, 143])
  assert.is(machine.must('journalctl', '--unit', service, '--priority', 'err', '--output', 'cat'), '')
  assert.equal(unitOf(machine, 'ActiveState', 'Result'), { ActiveState: 'inactive', Result: 'success' })
})

withBoot(
  'a wrong quotas.json is told once, without a loop, and a start after its mending trains',
  async () => {
    await using machine = await machineWith(publishes)
    const file = machine.path('etc/ransomeye-trainer/quotas.json')
    const right = readFileSync(file, 'utf8')
    writeFileSync(file, right.replace('"maxDiskMb":40', '"maxDiskMb":0').replace('"minFreeMb"', '"minFree"'))
    await machine.powerOn()

    const state = await until('the service has given up', () => {
      const now = unitOf(machine, 'ActiveState', 'SubState', 'ExecMainStatus', 'NRestarts')
      return now.ActiveState === 'failed' && now
    })
    const said = machine.must('journalctl', '--unit', service, '--priority', 'err', '--output', 'cat')
    writeFileSync(file, right)
    machine.must('systemctl', 'start', service)

    assert.equal(state, { ActiveState: 'failed', SubState: 'failed', ExecMainStatus: '78', NRestarts: '0' })
    assert.match(said, /maxDiskMb/)
    assert.match(said, /minFree/)
    assert.equal(publishedOn(machine), jobNames)
  },
)

withBoot('a disk that is full is told, and its end is found without help', async () => {
  await using machine = await machineWith(`console.log('ready')
while (!fs.existsSync(dir + '/go')) { fs.writeFileSync(dir + '/a.checkpoint', Buffer.alloc(2 ** 20)); await sleep(100) }
${publishes}`)
  machine.mountDisk(96, '/var/lib/ransomeye')
  addDropIn(machine, ...SOON)
  const fill = () => machine.run('dd', 'if=/dev/zero', 'of=/var/lib/ransomeye/capture', 'bs=64k')
  fill()

  await machine.powerOn()
  await until('a run finds no space', () => unitOf(machine, 'ExecMainStatus').ExecMainStatus === '3')
  const status = machine.must('ransomeye-trainer', 'status')
  rmSync(machine.path('var/lib/ransomeye/capture'))
  await untilReady(machine)
  fill()
  await until('the training has ended', () => exitCodes(machine).at(-1) === 3)
  rmSync(machine.path('var/lib/ransomeye/capture'))
  for (const job of jobNames) {
    await until(`${job} is trained`, () => existsSync(machine.path(models, job, 'work/a.checkpoint')))
    await until('it can be let go', () => {
      try {
        writeFileSync(machine.path(models, job, 'work/go'), '')
        return true
      } catch {
        return false
      }
    })
    await until(`${job} is there`, () => publishedOn(machine).includes(job))
  }
  await untilDone(machine)

  assert.match(status.replaceAll(/\s+/g, ' '), /the disk is full|exit code 3: .*(space|free|ENOSPC)/)
  assert.not.match(status, '--models-dir')
  assert.equal(publishedOn(machine), jobNames)
  machine.must('ransomeye-trainer', 'verify')
})

skipUnless(
  test,
  canBootDebian && hasMemoryGroups,
  'needs control groups of version 1 for memory, which a machine can be put into from outside',
)('a training that is killed for want of memory is a failed one, and all else goes on', async () => {
  await using machine = await machineWith(`const held = []
while (fs.existsSync('/etc/ransomeye-trainer/greedy')) held.push(Buffer.alloc(16 * 2 ** 20, 1))
${publishes}`)
  writeFileSync(machine.path('etc/ransomeye-trainer/greedy'), '')
  addDropIn(machine, ...SOON)
  await machine.powerOn({ memoryMb: 400 })

  const exit = await until('the training is killed', () =>
    eventsOf(machine).find(it => it.event === 'train.exit'),
  )
  rmSync(machine.path('etc/ransomeye-trainer/greedy'))
  await untilDone(machine)

  assert.is(exit.event === 'train.exit' && exit.signal, 'SIGKILL')
  assert.is(exitCodes(machine)[0], 1)
  assert.equal(publishedOn(machine), jobNames)
  assert.match(
    machine.must('journalctl', '--unit', service, '--output', 'cat'),
    /was ended by SIGKILL; .* out of memory/,
  )
})

withBoot('a clock that jumps by decades, there and back, ends no training and no model', async () => {
  const waits = `console.log('ready')\nwhile (!fs.existsSync(dir + '/go')) await sleep(50)\n${publishes}`
  await using machine = await machineWith(waits)
  const clock = (offset: string) => writeFileSync(machine.path('etc/faketimerc'), `${offset}\n`)
  const library = machine.must('find', '/usr/lib', '-name', 'libfaketime.so.1').trim()
  addDropIn(
    machine,
    `Environment=LD_PRELOAD=${library} FAKETIME_TIMESTAMP_FILE=/etc/faketimerc FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1`,
  )
  const letGo = async (offset: string) => {
    await untilReady(machine)
    clock(offset)
    for (const job of jobNames) {
      await untilReady(machine, job)
      writeFileSync(machine.path(models, job, 'work/go'), '')
    }
  }

  clock('-20y')
  await machine.powerOn()
  await letGo('+0')
  await untilDone(machine)
  const times = eventsOf(machine).map(it => Date.parse(it.time))
  clock('-10y')
  machine.must('systemctl', 'start', service)
  const skipped = eventsOf(machine)
    .slice(times.length)
    .filter(it => it.event === 'job.skip')

  const year = 365 * 86_400_000
  assert.ok(times.at(-1)! - times[0]! > 19 * year, 'the run has seen the jump')
  assert.equal(exitCodes(machine), [0, 0])
  assert.is(skipped.length, 3)
  assert.equal(publishedOn(machine), jobNames)
  machine.must('ransomeye-trainer', 'verify')
  const { stdout } = machine.run('ransomeye-trainer', 'status')
  assert.not.match(stdout, /NaN|Invalid|-\d+ (min|h|d)/)
})

withBoot('where a mount is missing nothing is trained below it', async () => {
  await using machine = await machineWith(publishes)
  // As from fstab, whose disks are nothing to a container.
  const mount = '/etc/systemd/system/var-lib-ransomeye.mount'
  writeFileSync(
    machine.path(mount),
    `[Mount]\nWhat=/no/such/disk.img\nWhere=/var/lib/ransomeye\nType=ext4\nOptions=loop\n[Install]\nWantedBy=multi-user.target\n`,
  )
  machine.must('systemctl', 'enable', 'var-lib-ransomeye.mount')
  await machine.powerOn()
  await untilDone(machine)
  const before = eventsOf(machine)
  const said = machine.must('journalctl', '--unit', service, '--output', 'cat')

  machine.must('systemctl', 'disable', 'var-lib-ransomeye.mount')
  rmSync(machine.path(mount))
  machine.must('systemctl', 'daemon-reload')
  machine.must('systemctl', 'start', service)

  assert.equal(before, [])
  assert.match(said, 'Dependency failed')
  assert.equal(publishedOn(machine), jobNames)
})

withBoot(
  'the volume of a job that cannot be mounted keeps the service from training without it',
  async () => {
    await using machine = await machineWith(publishes)
    machine.must('systemctl', 'enable', 'var-lib-ransomeye-models-core.mount')
    await machine.powerOn()
    await untilDone(machine)

    const retraining = machine.run('systemctl', 'start', 'ransomeye-retrain.service')

    assert.match(machine.must('journalctl', '--unit', service, '--output', 'cat'), 'Dependency failed')
    assert.is.not(retraining.status, 0)
    assert.equal(publishedOn(machine), [])
    assert.is(outputOf(machine, 'core'), '')
  },
)

withBoot('on a read-only disk the service ends with 238, and status says what that is', async () => {
  await using machine = await machineWith(publishes)
  machine.mountDisk(96, '/var/lib/ransomeye')
  await machine.powerOn()
  await untilDone(machine)
  machine.must('systemctl', 'stop', service)
  machine.must('sh', '-c', 'rm -r /var/lib/ransomeye/models; mount -o remount,ro /var/lib/ransomeye')

  machine.run('systemctl', 'start', service)
  const { ExecMainStatus } = unitOf(machine, 'ExecMainStatus')
  const status = machine.must('ransomeye-trainer', 'status').replaceAll(/\s+/g, ' ')

  assert.is(ExecMainStatus, '238')
  assert.match(status, 'read-only, on which the service ends with 238/STATE_DIRECTORY; mount it writable')
})

withBoot('without bubblewrap each run warns of it, with the remedy', async () => {
  await using machine = await machineWith(publishes)
  machine.must('dpkg', '--remove', 'bubblewrap')
  await machine.powerOn()
  await untilDone(machine)

  const said = machine.must('journalctl', '--unit', service, '--priority', 'warning', '--output', 'cat')
  assert.match(said, /trainings run without the sandbox/)
  assert.match(said, /install the Debian package bubblewrap/)
  assert.equal(publishedOn(machine), jobNames)
})

withBoot('an installation names a folder of root in which the service could not write', async () => {
  await using machine = await newMachine(await debianImage(13, 'e2fsprogs', 'faketime'))
  mkdirSync(machine.path(models, 'core'), { recursive: true })

  const { deb } = await builtPackage()
  setTraining(machine, publishes)
  const said = installPackage(machine, deb, '--option', 'Dpkg::Options::=--force-confold')
  const remedy = /: (chown .*?)\s*$/m.exec(said)?.[1]
  machine.must('sh', '-c', remedy ?? 'false')
  await machine.powerOn()
  await untilDone(machine)

  assert.match(said, /ransomeye\/models belongs to root, and the service cannot write there/)
  assert.equal(publishedOn(machine), jobNames)
})

withBoot('systemd rates what the running service is exposed to by at most 1.5', async () => {
  await using machine = await machineWith(goesOn)
  await machine.powerOn()
  await untilReady(machine)

  const { status, stdout } = machine.run(
    'systemd-analyze',
    'security',
    '--threshold=15',
    '--no-pager',
    service,
  )

  assert.is(status, 0, stdout)
  assert.match(stdout, /Overall exposure level/)
})

test.run()
