import { spawnSync } from 'node:child_process'
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { serviceNames } from '../../lib/machine/units.ts'
import { fileOf, mountUnit } from '../../lib/machine/volume/unit.ts'
import { imageOf } from '../../lib/settings/layout.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { createdRig, hasLoopDevices, must, volumeRig } from '../support/volume-rig.ts'

const MIB = 2 ** 20
const NOBODY = 65534
const mounting = skipUnless(test, hasLoopDevices, 'needs root and loop devices')
const mountingInSweep = skipUnless(inSweep, hasLoopDevices, 'needs root and loop devices')

mountingInSweep('create and mount do nothing more when they are repeated', async () => {
  await using rig = await createdRig()
  writeFileSync(join(rig.folder, 'core.onnx'), 'as it was')
  const state = () => [
    must('findmnt', '--noheadings', '--output', 'ID,SOURCE', rig.folder),
    lstatSync(rig.image).ino,
  ]
  const before = state()

  const ended = [await rig.volume('create'), await rig.volume('mount'), await rig.volume('create')]

  assert.equal(
    ended.map(({ exitCode }) => exitCode),
    [0, 0, 0],
  )
  assert.equal(state(), before)
  assert.is(readFileSync(join(rig.folder, 'core.onnx'), 'utf8'), 'as it was')
})

mountingInSweep('a volume can be made, seen and removed below a folder of any name', async () => {
  await using rig = await volumeRig()
  const there = ['--models-dir', rig.path('für \t\\ 50%')]

  const created = await rig.volume('create', ...there)
  const status = await rig.volume('status', '--json', ...there)
  const removed = await rig.volume('remove', ...there)

  assert.equal([created.stderr, created.exitCode], ['', 0])
  assert.is(JSON.parse(status.stdout).state, 'mounted')
  assert.equal([removed.stderr, removed.exitCode], ['', 0])
})

mountingInSweep('--owner makes all of it the service user’s, the folders of the trainer too', async () => {
  await using rig = await volumeRig()
  mkdirSync(join(rig.folder, 'work'), { recursive: true })
  writeFileSync(join(rig.folder, 'core.onnx'), 'of another user')
  chownSync(join(rig.folder, 'core.onnx'), 1, 1)

  const { exitCode } = await rig.volume('create', '--owner', 'nobody')

  assert.is(exitCode, 0)
  const names = ['', '.trainer', '.trainer/lock', 'core', 'core/core.onnx', 'core/work']
  const owners = names.map(name => statSync(rig.path('models', name)).uid)
  assert.equal(
    owners,
    names.map(() => NOBODY),
  )
  assert.is(statSync(rig.image).uid, 0)
  await rig.volume('remove')
  assert.is(statSync(rig.folder).uid, NOBODY)
  assert.is(statSync(rig.folder).mode & 0o777, 0o750)
})

mountingInSweep('remove says that the unit of the volume has to go too, where there is one', async () => {
  await using rig = await createdRig()
  const { stdout } = await rig.volume('status', '--unit')
  const file = stdout.match(/^# (.*)$/m)![1]!
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, stdout)
  try {
    const removed = await rig.volume('remove')
    rmSync(file)
    const again = await rig.volume('remove')

    const commands = `systemctl disable '?${basename(file)}'?; rm '?${file}'?`.replaceAll('\\', '\\\\')
    assert.match(removed.stdout, new RegExp(`is removed; .*\n.*cannot start .*: ${commands}\n$`))
    assert.is(again.stdout, 'core has no volume\n')
  } finally {
    rmSync(file, { force: true })
  }
})

mountingInSweep('status tells of each state what there is', async () => {
  await using rig = await volumeRig()
  const status = async () => JSON.parse((await rig.volume('status', '--json')).stdout)

  const none = await status()
  await rig.volume('create')
  const mounted = await status()
  await rig.volume('unmount')
  const unmounted = await status()

  const place = { job: 'core', folder: rig.folder, image: rig.image, quotaBytes: 24 * MIB }
  assert.equal(none, { ...place, state: 'none', imageBytes: 0, reservedBytes: 0 })
  const { usableBytes, usedBytes, ...rest } = mounted
  const { sizeBytes } = rig.disk()
  assert.equal(rest, { ...place, state: 'mounted', imageBytes: sizeBytes, reservedBytes: sizeBytes })
  assert.ok(usedBytes === 4096 && usableBytes > 17 * MIB && usableBytes < 24 * MIB)
  assert.equal(unmounted, { ...rest, state: 'unmounted' })
})

const asService = skipUnless(test, existsSync('/usr/bin/systemd-analyze'), 'needs systemd-analyze')

asService(
  'the systemd unit has the name that systemd gives it, and systemd finds no fault with it',
  async () => {
    await using rig = await volumeRig()
    const modelsDir = rig.path('50% of – models')
    const folder = join(modelsDir, 'core')

    const unit = mountUnit(imageOf(modelsDir, 'core').image, folder)

    const { name, text } = unit
    assert.is(name, must('systemd-escape', '--path', '--suffix=mount', folder).trim())
    assert.ok(fileOf(unit).startsWith(`# /etc/systemd/system/${name}\n[Unit]\n`))
    writeFileSync(rig.path(name), text)
    for (const service of serviceNames)
      writeFileSync(rig.path(service), '[Service]\nType=oneshot\nExecStart=/bin/true\n')
    const verified = spawnSync('systemd-analyze', ['verify', '--recursive-errors=yes', rig.path(name)], {
      encoding: 'utf8',
    })
    assert.is(verified.status, 0, verified.stderr)
    assert.is(verified.stderr, '')
    assert.match(text, '\nOptions=loop,nodev,nosuid\n')
  },
)

mounting('the volume that the systemd unit mounts is the volume of the trainer', async () => {
  await using rig = await createdRig()
  const unit = (await rig.volume('status', '--unit')).stdout
  must('umount', rig.folder)
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)![1]!

  must('mount', '-t', value('Type'), '-o', value('Options'), value('What'), value('Where'))

  const { state } = JSON.parse((await rig.volume('status', '--json')).stdout)
  assert.is(state, 'mounted')
})

test.run()
