import { createHash } from 'node:crypto'
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import * as assert from 'uvu/assert'
import { jobNames } from '../../lib/quotas.ts'
import { type BootedMachine, newMachine, withBoot } from '../support/booted-machine.ts'
import { debianImage } from '../support/debian-image.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import {
  asVersion,
  builtPackage,
  eventsOf,
  goesOn,
  installPackage,
  models,
  processesOf,
  publishedOn,
  publishes,
  service,
  setTraining,
  unitOf,
  untilDone,
  untilReady,
} from '../support/package-rig.ts'
import { root } from '../support/places.ts'
import { until } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

/** Who has settings of their own keeps them, without being asked. */
const KEEP_SETTINGS = ['--option', 'Dpkg::Options::=--force-confold']
const settings = '/etc/ransomeye-trainer/quotas.json'
const timer = 'ransomeye-retrain.timer'

/** Says so, then publishes as soon as the test lets it. */
const waitsToPublish = `console.log('ready')
while (!fs.existsSync(dir + '/go')) await sleep(50)
${publishes}`

/** Let each job's training end, as it comes. */
async function letGo(machine: BootedMachine): Promise<void> {
  for (const job of jobNames) {
    await untilReady(machine, job)
    writeFileSync(machine.path(models, job, 'work/go'), '')
  }
  await untilDone(machine)
}

/** The versions of the program that have run, in their order. */
function versionsOf(machine: BootedMachine): string[] {
  return eventsOf(machine).flatMap(it => (it.event === 'run.start' ? [it.version] : []))
}

withBoot(
  'an installation does not wait for the models, and leaves an upgrade and a downgrade to the next start',
  async () => {
    const built = await builtPackage()
    await using machine = await newMachine(await debianImage(13))
    await machine.powerOn()
    setTraining(machine, waitsToPublish)
    const quotas = readFileSync(machine.path(settings), 'utf8')

    installPackage(machine, built.deb, ...KEEP_SETTINGS)
    await untilReady(machine)
    const dropIn = '/etc/systemd/system/ransomeye-trainer.service.d/ours.conf'
    mkdirSync(machine.path(dropIn, '..'))
    writeFileSync(machine.path(dropIn), '[Service]\nNice=18\n')
    const before = unitOf(machine, 'MainPID', 'NRestarts')
    installPackage(machine, asVersion(built, built.deb, '0.2.0'), ...KEEP_SETTINGS)
    const after = unitOf(machine, 'MainPID', 'NRestarts')
    await letGo(machine)
    machine.must('systemctl', 'start', service)
    installPackage(machine, built.deb, '--allow-downgrades', ...KEEP_SETTINGS)
    await untilDone(machine)

    assert.equal(after, before, 'the same run goes on')
    assert.is.not(before.MainPID, '0')
    assert.equal(versionsOf(machine), ['0.1.0', '0.2.0', '0.1.0'])
    const ended = eventsOf(machine).flatMap(it => (it.event === 'run.done' ? [it.exitCode] : []))
    assert.equal(ended, [0, 0, 0])
    assert.equal(publishedOn(machine), jobNames)
    assert.is(readFileSync(machine.path(settings), 'utf8'), quotas)
    assert.is(unitOf(machine, 'Nice').Nice, '18')
    assert.is(machine.must('journalctl', '--unit', service, '--priority', 'warning', '--output', 'cat'), '')
  },
)

withBoot('a removal ends a training and keeps the rest, and a reinstallation finds it', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(13))
  await machine.powerOn()
  setTraining(machine, `if (job === 'core') {\n${publishes}} else {\n${goesOn}}`)
  installPackage(machine, built.deb, ...KEEP_SETTINGS)
  await untilReady(machine, 'dpi')
  machine.must('systemctl', 'enable', '--now', timer)

  machine.must('apt-get', 'remove', '--yes', 'ransomeye-trainer')
  const left = processesOf(machine)
  const kept = [settings, `${models}/core/core.onnx`, `${models}/.trainer/events.jsonl`]
  const found = kept.filter(name => existsSync(machine.path(name)))
  const starts = machine.run('systemctl', 'start', service).status
  const stopped = machine.run('systemctl', 'is-active', timer).stdout
  setTraining(machine, publishes)
  installPackage(machine, built.deb, ...KEEP_SETTINGS)
  await untilDone(machine)

  assert.equal(left, [])
  assert.equal(found, kept)
  assert.is.not(starts, 0)
  const lastRun = eventsOf(machine).slice(eventsOf(machine).findLastIndex(it => it.event === 'run.start'))
  assert.equal(
    lastRun.flatMap(it => (it.event === 'job.skip' ? [it.job] : [])),
    ['core'],
  )
  assert.equal(publishedOn(machine), jobNames)
  assert.is(machine.must('systemctl', 'is-enabled', service), 'enabled\n')
  assert.is(stopped, 'inactive\n')
  assert.is(machine.must('systemctl', 'is-active', timer), 'active\n')
})

withBoot('a purge removes what was trained here, and says which models it keeps', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(13))
  await machine.powerOn()
  setTraining(machine, `fs.writeFileSync(dir + '/a.checkpoint', 'x')\n${publishes}`)
  installPackage(machine, built.deb, ...KEEP_SETTINGS)
  await untilDone(machine)
  // dpi's model is an operator's own, and agent's is no longer what was published.
  const own = onnxModel({ producer: 'an operator' })
  for (const job of ['dpi', 'agent']) {
    const file = machine.path(models, job, `${job}.onnx`)
    writeFileSync(`${file}.new`, own)
    renameSync(`${file}.new`, file)
    if (job === 'dpi') machine.must('systemctl', 'start', service)
  }

  // What interrupted runs leave, what a service's user might, and what an administrator has enabled.
  const inModels = (...names: string[]) => machine.path(models, ...names)
  for (const name of ['core/aside', 'core/generations/next', 'core/generations/9']) {
    mkdirSync(inModels(name), { recursive: true })
    writeFileSync(inModels(name, 'x'), 'x')
  }
  symlinkSync('current/saved', inModels('core/saved'))
  writeFileSync(machine.path('etc/precious'), 'x')
  symlinkSync('/etc', inModels('core/generations/9/d'))
  const files = { 'd/precious': createHash('sha256').update('x').digest('hex') }
  writeFileSync(
    inModels('core/generations/9/manifest.json'),
    JSON.stringify({ files, metadata: { adopted: [] } }, null, 2),
  )
  appendFileSync(
    inModels('.trainer/events.jsonl'),
    `${JSON.stringify({ event: 'model.publish', job: 'core', sha256: files['d/precious'] })}\n`,
  )
  // What another machine has trained, with its manifest.
  mkdirSync(inModels('core/generations/8'))
  writeFileSync(inModels('core/generations/8/core.bin'), 'y')
  const strange = { 'core.bin': createHash('sha256').update('y').digest('hex') }
  writeFileSync(
    inModels('core/generations/8/manifest.json'),
    JSON.stringify({ metadata: { adopted: [] }, files: strange }, null, 2),
  )
  machine.must('chown', '-hR', 'ransomeye:ransomeye', `${models}/core`)
  const volume = 'var-lib-ransomeye-models-dpi.mount'
  machine.must('systemctl', 'enable', '--now', timer)
  machine.must('systemctl', 'enable', volume)

  const said = machine.must('sh', '-c', 'apt-get purge --yes ransomeye-trainer 2>&1')

  assert.match(said, `without this package nothing mounts that volume at the next boot: ${volume}`)
  assert.equal(machine.must('find', '/etc/systemd', '/var/lib/systemd', '-name', '*ransomeye*'), '')
  assert.ok(existsSync(machine.path('etc/precious')))
  assert.match(said, /kept .*\/core\/generations\/8, whose models no journal here calls trained here/)
  const left = machine.must('find', models, '-type', 'f', '-printf', '%P\n').trim().split('\n').sort()
  for (const job of ['dpi', 'agent']) {
    assert.ok(left.includes(`${job}/${job}.onnx`), left.join())
    assert.equal(readFileSync(machine.path(models, job, `${job}.onnx`)), own)
    assert.match(said, new RegExp(`kept .*/${job}`))
  }
  assert.equal(
    left.filter(name => /^core|checkpoint|\.trainer/.test(name)),
    ['core/generations/8/core.bin', 'core/generations/8/manifest.json', 'core/generations/9/x'],
  )
  assert.not.ok(
    existsSync(inModels('core/aside')) || lstatSync(inModels('core/saved'), { throwIfNoEntry: false }),
  )
  assert.not.ok(existsSync(machine.path(settings)))
  assert.is(machine.run('systemctl', 'list-unit-files', 'ransomeye*', '--no-legend').stdout, '')
})

withBoot('a purge of what was trained here alone leaves nothing', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(13))
  setTraining(machine, publishes)
  installPackage(machine, built.deb, ...KEEP_SETTINGS)
  await machine.powerOn()
  await untilDone(machine)
  await machine.shutDown()

  machine.must('apt-get', 'purge', '--yes', 'ransomeye-trainer')

  // Nobody owns what the test has put beside the conffile.
  const left = machine.must('find', '/var/lib', '/etc', '/usr', '-name', '*ransomeye*').trim().split('\n')
  assert.equal(left, ['/etc/ransomeye-trainer'])
})

withBoot(
  'where policy-rc.d forbids it an installation starts nothing, and the next boot trains',
  async () => {
    const built = await builtPackage()
    await using machine = await newMachine(await debianImage(13))
    writeFileSync(machine.path('usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 })
    await machine.powerOn()
    setTraining(machine, publishes)

    installPackage(machine, built.deb, ...KEEP_SETTINGS)
    await untilDone(machine)
    const before = eventsOf(machine)
    await machine.shutDown()
    await machine.powerOn()
    await untilDone(machine)

    assert.equal(before, [])
    assert.equal(publishedOn(machine), jobNames)
  },
)

withBoot('an image without systemd gets the user and the models folder, and trains by hand', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage('13 without systemd'))
  setTraining(machine, publishes)

  const said = installPackage(machine, built.deb, ...KEEP_SETTINGS)
  machine.must('mount', '-t', 'proc', 'proc', '/proc')
  const owner = machine.must('stat', '--format', '%U:%G %a', models).trim()
  machine.must('runuser', '-u', 'ransomeye', '--', 'ransomeye-trainer', '--models-dir', models)
  const published = publishedOn(machine)
  machine.must('apt-get', 'purge', '--yes', 'ransomeye-trainer')

  assert.not.match(said, /error|cannot|failed/i)
  assert.is(existsSync(machine.path('usr/bin/systemctl')), false)
  assert.is(owner, 'ransomeye:ransomeye 750')
  assert.equal(published, jobNames)
  assert.is(existsSync(machine.path(models)), false)
})

withBoot('with a read-only /usr it trains as ever', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(13))
  setTraining(machine, publishes)
  installPackage(machine, built.deb, ...KEEP_SETTINGS)
  const unit =
    '[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n[Service]\nType=oneshot\nExecStart=/bin/sh -c "mount --bind /usr /usr && mount -o remount,bind,ro /usr"\n'
  writeFileSync(machine.path('etc/systemd/system/read-only-usr.service'), unit)
  mkdirSync(machine.path('etc/systemd/system/sysinit.target.wants'), { recursive: true })
  symlinkSync(
    '/etc/systemd/system/read-only-usr.service',
    machine.path('etc/systemd/system/sysinit.target.wants/read-only-usr.service'),
  )

  await machine.powerOn()
  await untilDone(machine)

  assert.is.not(machine.run('touch', '/usr/lib/ransomeye-trainer/x').status, 0)
  assert.equal(publishedOn(machine), jobNames)
  machine.must('ransomeye-trainer', 'verify')
})

withBoot('a machine moves over from a clone by the documented command, with its models', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(13))
  const clone = '/opt/ransomeye-trainer'
  machine.insert(root, clone)
  await machine.powerOn()
  setTraining(machine, publishes)
  const inClone = (command: string) => machine.must('sh', '-c', `cd ${clone} && ${command}`)
  inClone(`node --import tsx scripts/install.ts --every 7d --quotas ${settings}`)
  machine.must('systemctl', 'start', service)
  const trained = eventsOf(machine)
  setTraining(machine, goesOn)
  machine.must('systemctl', 'start', '--no-block', 'ransomeye-retrain.service')
  await untilReady(machine)

  const page = readFileSync(`${root}/docs/appliance.md`, 'utf8')
  const command = /^ *(node --import tsx scripts\/install\.ts --uninstall && apt-get install .*)$/m.exec(
    page,
  )![1]!
  // The clone is ours: the package must not come into it.
  const likeIt = '/opt/with-dist'
  machine.must('sh', '-c', `mkdir ${likeIt} && ln -s ${clone}/[!d]* ${likeIt}`)
  mkdirSync(machine.path(likeIt, 'dist'))
  writeFileSync(machine.path(likeIt, 'dist/ransomeye-trainer_0.1.0_all.deb'), readFileSync(built.deb))
  machine.must('sh', '-c', `cd ${likeIt} && ${command}`)
  await untilDone(machine)

  assert.equal(publishedOn(machine), jobNames)
  const after = eventsOf(machine).slice(trained.length)
  assert.equal(
    after
      .slice(after.findLastIndex(it => it.event === 'run.start'))
      .flatMap(it => (it.event === 'job.skip' ? [it.job] : [])),
    jobNames,
  )
  const { ExecStart, FragmentPath } = unitOf(machine, 'ExecStart', 'FragmentPath')
  assert.match(ExecStart!, '/usr/bin/ransomeye-trainer run')
  assert.is(FragmentPath, '/usr/lib/systemd/system/ransomeye-trainer.service')
  assert.equal(processesOf(machine, 'ransomeye-retrain.service'), [])
})

withBoot('who forgets to uninstall the clone is told that its units come first', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(13))
  const clone = '/opt/ransomeye-trainer'
  machine.insert(root, clone)
  await machine.powerOn()
  setTraining(machine, publishes)
  machine.must('sh', '-c', `cd ${clone} && node --import tsx scripts/install.ts --quotas ${settings}`)

  const said = installPackage(machine, built.deb, ...KEEP_SETTINGS)
  const remedy = /to use this one: (.*?)\s*$/m.exec(said)?.[1]
  machine.must('sh', '-c', remedy ?? 'false')
  await until("the service is the package's", () =>
    unitOf(machine, 'ExecStart').ExecStart!.includes('/usr/bin/ransomeye-trainer'),
  )

  assert.match(said, '/etc/systemd/system/ransomeye-trainer.service starts another installation')
})

test.run()
