import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { trainAndPublish } from '../support/publishing.ts'
import { readWhile } from '../support/read-while.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { versionOf } from '../support/versions.ts'
import { hasLoopDevices, must, type VolumeRig, volumeRig } from '../support/volume-rig.ts'

const MIB = 2 ** 20
const mounting = skipUnless(inSweep, hasLoopDevices, 'needs root and loop devices')

/** Publish a model of 5 MiB that test/model-reader.ts knows in every byte. */
async function publishVersion(rig: VolumeRig, version: number): Promise<void> {
  const { model, dataName, data } = versionOf(version)
  await trainAndPublish(rig.folder, { 'core.onnx': model, [dataName]: data })
}

mounting('a reader finds whole models at every moment of create, unmount, mount and remove', async () => {
  await using rig = await volumeRig()
  await publishVersion(rig, 1)
  const commands = ['create', 'unmount', 'mount', 'remove', 'create']

  const exitCodes: number[] = []
  const seen = await readWhile(rig.folder, async () => {
    for (const command of commands) exitCodes.push((await rig.volume(command)).exitCode)
  })

  assert.equal(exitCodes, [0, 0, 0, 0, 0])
  assert.is(seen.torn, 0)
  assert.ok(seen.whole >= 50, `${seen.whole} reads`)
})

mounting(
  'what is in the folder is in the volume afterwards, and the space beneath is free again',
  async () => {
    await using rig = await volumeRig()
    await publishVersion(rig, 1)
    const epoch = join(rig.folder, 'work', 'epoch-1.checkpoint')
    writeFileSync(epoch, Buffer.alloc(2 * MIB, 7))
    utimesSync(epoch, 1000.25, 1000.25)
    const content = readFileSync(join(rig.folder, 'core.onnx'))

    await rig.volume('create')

    assert.ok(content.equals(readFileSync(join(rig.folder, 'core.onnx'))))
    assert.is(statSync(epoch).mtimeMs, 1_000_250)
    must('umount', rig.folder)
    assert.equal(readdirSync(rig.folder), [])
  },
)

mounting('create deletes the oldest checkpoints when the folder holds more than fits', async () => {
  await using rig = await volumeRig()
  await publishVersion(rig, 1)
  for (const epoch of [1, 2, 3]) {
    const file = join(rig.folder, 'work', `epoch-${epoch}.checkpoint`)
    writeFileSync(file, Buffer.alloc(6 * MIB, epoch))
    utimesSync(file, epoch, epoch)
  }

  const { exitCode, stdout } = await rig.volume('create')

  assert.is(exitCode, 0)
  assert.match(stdout, /^pruned .*epoch-1\.checkpoint \(6 MiB\)\n/)
  assert.equal(readdirSync(join(rig.folder, 'work')).sort(), ['epoch-2.checkpoint', 'epoch-3.checkpoint'])
})

mounting('models that do not fit are a violation of the quota; they stay, and no image is left', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.folder, { recursive: true })
  writeFileSync(join(rig.folder, 'core.onnx'), Buffer.alloc(23 * MIB, 1))

  const { exitCode, stderr } = await rig.volume('create')

  assert.is(exitCode, 2)
  assert.match(stderr, 'Model too large for quota')
  assert.is(statSync(join(rig.folder, 'core.onnx')).size, 23 * MIB)
  assert.equal(readdirSync(rig.path('models', '.trainer', 'volumes')), [])
})

mounting('a volume that somebody else has unmounted gives its models back when it is removed', async () => {
  await using rig = await volumeRig()
  await publishVersion(rig, 1)
  await rig.volume('create')
  must('umount', rig.folder)

  const { exitCode } = await rig.volume('remove')

  assert.is(exitCode, 0)
  assert.ok(readFileSync(join(rig.folder, 'core.onnx')).equals(versionOf(1).model))
  assert.not(existsSync(rig.image))
})

mounting('files that the volume has otherwise are neither hidden nor deleted', async () => {
  await using rig = await volumeRig()
  await publishVersion(rig, 1)
  await rig.volume('create')
  await rig.volume('unmount')
  appendFileSync(join(rig.folder, 'manifest.json'), ' ')

  const refused = await rig.volume('mount')
  must('mount', '-o', 'loop', rig.image, rig.folder)
  const kept = await rig.volume('unmount')

  assert.is(refused.exitCode, 3)
  assert.match(
    refused.stderr,
    /Cannot use core's volume: it lacks manifest\.json of .*core, or has .* remove the volume with --keep-folder/,
  )
  assert.is(kept.exitCode, 3)
  assert.match(kept.stderr, /beneath core's volume: the volume lacks manifest\.json /)
  must('umount', rig.folder)
  assert.ok(readFileSync(join(rig.folder, 'manifest.json'), 'utf8').endsWith(' '))
})

mounting(
  'what was trained while the volume was not mounted is kept when the volume is made anew',
  async () => {
    await using rig = await volumeRig()
    await publishVersion(rig, 1)
    await rig.volume('create')
    await rig.volume('unmount')
    await publishVersion(rig, 2)
    const { model } = versionOf(2)

    const refused = [await rig.volume('create'), await rig.volume('remove')]
    const removed = await rig.volume('remove', '--keep-folder')
    const imageIsThere = existsSync(rig.image)
    const created = await rig.volume('create')

    for (const { exitCode, stderr } of refused) {
      assert.is(exitCode, 3)
      assert.match(stderr, /^Cannot use core's volume: .* remove the volume with --keep-folder/)
    }
    assert.equal([removed.exitCode, imageIsThere, created.exitCode], [0, false, 0])
    assert.ok(readFileSync(join(rig.folder, 'core.onnx')).equals(model))
  },
)

mounting(
  '--keep-folder does not delete the only models there are, nor what a mounted volume has',
  async () => {
    await using rig = await volumeRig()
    await publishVersion(rig, 1)
    await rig.volume('create')
    must('umount', rig.folder)

    const refused = await rig.volume('remove', '--keep-folder')
    await rig.volume('mount')
    const removed = await rig.volume('remove', '--keep-folder')

    assert.is(refused.exitCode, 3)
    assert.match(refused.stderr, /core has no valid model of its own .* without --keep-folder$/)
    assert.is(removed.exitCode, 0)
    assert.ok(readFileSync(join(rig.folder, 'core.onnx')).equals(versionOf(1).model))
  },
)

mounting('a volume in use is not unmounted; it keeps its models, and the space beneath is free', async () => {
  await using rig = await volumeRig()
  await publishVersion(rig, 1)
  await rig.volume('create')
  const user = spawn('sleep', ['60'], { cwd: rig.folder })

  const { exitCode, stderr } = await rig.volume('remove')

  const ended = once(user, 'exit')
  user.kill()
  await ended
  assert.is(exitCode, 3)
  assert.match(stderr, /target is busy.*fuser/)
  assert.ok(readFileSync(join(rig.folder, 'core.onnx')).equals(versionOf(1).model))
  must('umount', rig.folder)
  assert.equal(readdirSync(rig.folder), [])
})

test.run()
