import { spawn, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { capOf } from '../lib/usage.ts'
import { trainAndPublish } from './publishing.ts'
import { readWhile } from './read-while.ts'
import { skipUnless } from './skips.ts'
import { versionOf } from './versions.ts'
import { hasLoopDevices, mountOptions, must, type VolumeRig, volumeRig } from './volume-rig.ts'

const MIB = 2 ** 20
const NOBODY = 65534
const mounting = skipUnless(test, hasLoopDevices, 'needs root and loop devices')

async function createdRig(maxDiskMb?: number): Promise<VolumeRig> {
  const rig = await volumeRig(maxDiskMb === undefined ? {} : { maxDiskMb })
  const { exitCode, stderr } = await rig.volume('create')
  if (exitCode === 0) return rig
  await rig[Symbol.asyncDispose]()
  throw new Error(stderr)
}

/** Publish a model of 5 MiB that test/model-reader.ts knows in every byte. */
async function publishVersion(rig: VolumeRig, version: number): Promise<void> {
  const { model, dataName, data } = versionOf(version)
  await trainAndPublish(rig.folder, { 'core.onnx': model, [dataName]: data })
}

// The first of these tests: a loop device that has once refused to trim goes on refusing.
mounting(
  'the image stays reserved to its last block when the volume is written, emptied and trimmed',
  async () => {
    await using rig = await createdRig()
    const before = rig.disk()
    writeFileSync(join(rig.folder, 'a.checkpoint'), Buffer.alloc(15 * MIB, 1))
    must('sync', '--file-system', rig.folder)
    rmSync(join(rig.folder, 'a.checkpoint'))

    const { status } = spawnSync('fstrim', [rig.folder])

    assert.is.not(status, 0)
    must('sync', '--file-system', rig.folder)
    const { blockBytes, sizeBytes } = rig.disk()
    assert.ok(before.blockBytes >= sizeBytes && blockBytes >= before.blockBytes && blockBytes <= 24 * MIB)
  },
)

mounting(
  'create makes the folder a filesystem whose image is within the quota, for devices and setuid of no use',
  async () => {
    await using rig = await volumeRig({ maxDiskMb: 200 })

    const { exitCode, stdout } = await rig.volume('create')

    assert.is(exitCode, 0)
    assert.match(stdout, /mounted on .*models\/core, 0\.0 MiB of 190 MiB used/)
    const { blockBytes, sizeBytes } = rig.disk()
    assert.ok(blockBytes <= 200 * MIB && blockBytes >= sizeBytes)
    const capBytes = capOf(rig.folder, 200 * MIB)
    assert.ok(capBytes && capBytes > 190 * MIB && capBytes <= sizeBytes)
    const options = mountOptions(rig.folder)!.split(',')
    assert.ok(options.includes('nodev') && options.includes('nosuid') && !options.includes('noexec'))
    assert.equal(readdirSync(rig.folder), [])
    assert.is(statSync(rig.folder).mode & 0o777, 0o750)
  },
)

mounting('a volume of 3 GiB leaves 3023 MiB for files', async () => {
  await using rig = await createdRig(3072)

  const { bavail, bsize } = statfsSync(rig.folder)

  assert.ok(bavail * bsize >= 3023 * MIB, `${bavail * bsize} bytes`)
  assert.ok(rig.disk().blockBytes <= 3072 * MIB)
})

mounting('a reader finds whole models at every moment of create, unmount, mount and remove', async () => {
  await using rig = await volumeRig()
  await publishVersion(rig, 1)
  const commands = ['create', 'unmount', 'mount', 'remove', 'create']

  const exitCodes: (number | null)[] = []
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

mounting('create and mount do nothing more when they are repeated', async () => {
  await using rig = await createdRig()
  writeFileSync(join(rig.folder, 'core.onnx'), 'as it was')
  const before = [readFileSync('/proc/self/mountinfo', 'utf8'), lstatSync(rig.image).ino]

  const ended = [await rig.volume('create'), await rig.volume('mount'), await rig.volume('create')]

  assert.equal(
    ended.map(({ exitCode }) => exitCode),
    [0, 0, 0],
  )
  assert.equal([readFileSync('/proc/self/mountinfo', 'utf8'), lstatSync(rig.image).ino], before)
  assert.is(readFileSync(join(rig.folder, 'core.onnx'), 'utf8'), 'as it was')
})

mounting('--owner makes all of it the service user’s, the folders of the trainer too', async () => {
  await using rig = await volumeRig()
  await publishVersion(rig, 1)
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

mounting('status tells of a trimmed image, and mount reserves it again without touching a file', async () => {
  await using rig = await createdRig()
  writeFileSync(join(rig.folder, 'core.onnx'), Buffer.alloc(MIB, 3))
  must('sync', '--file-system', rig.folder)
  const { sizeBytes } = rig.disk()
  must(
    'fallocate',
    '--punch-hole',
    '--offset',
    String(sizeBytes - 2 * MIB),
    '--length',
    String(MIB),
    rig.image,
  )

  const trimmed = await rig.volume('status', '--json')
  const { exitCode } = await rig.volume('mount')
  const mended = await rig.volume('status', '--json')

  assert.is(exitCode, 0)
  const [before, after] = [JSON.parse(trimmed.stdout), JSON.parse(mended.stdout)]
  const missingBytes = before.imageBytes - before.reservedBytes
  assert.ok(missingBytes > 0.9 * MIB && missingBytes <= MIB, `${missingBytes} bytes`)
  assert.is(after.imageBytes, after.reservedBytes)
  assert.ok(readFileSync(join(rig.folder, 'core.onnx')).equals(Buffer.alloc(MIB, 3)))
})

mounting('status tells of each state what there is', async () => {
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
  assert.ok(usedBytes === 4096 && usableBytes > 18 * MIB && usableBytes < 24 * MIB)
  assert.equal(unmounted, { ...rest, state: 'unmounted' })
})

/** Ways to outgrow a filesystem, each a program in the volume's folder that must fail. */
const fillings: [name: string, command: string[]][] = [
  ['write', ['dd', 'if=/dev/zero', 'of=big', 'bs=1M']],
  ['fallocate', ['fallocate', '--length', '100M', 'big']],
  [
    'FALLOC_FL_KEEP_SIZE',
    [
      'bash',
      '-c',
      'for ((n = 0; ; n++)); do touch big-$n; fallocate --keep-size --length 500K big-$n || exit; done',
    ],
  ],
  [
    'many small files',
    [
      process.execPath,
      '-e',
      `for (let n = 0; ; n++) require('fs').writeFileSync('small-' + n, Buffer.alloc(40_000 + n))`,
    ],
  ],
  [
    'growth by mmap',
    [
      '/usr/bin/python3',
      '-c',
      `import mmap
file = open('big', 'w+b'); file.truncate(100 << 20)
area = mmap.mmap(file.fileno(), 0)
for at in range(0, len(area), 4096): area[at] = 1`,
    ],
  ],
]

for (const [name, command] of fillings) {
  const isThere = hasLoopDevices && (!command[0]!.startsWith('/') || existsSync(command[0]!))
  skipUnless(
    test,
    isThere,
    'needs root, loop devices and Debian’s python3',
  )(`a volume is not outgrown by ${name}: 0 bytes over`, async () => {
    await using rig = await createdRig()
    const before = rig.disk()

    const { status, signal } = spawnSync(command[0]!, command.slice(1), { cwd: rig.folder })
    spawnSync('sync', ['--file-system', rig.folder])

    assert.ok(status !== 0, `${status} ${signal}`)
    const { bavail, bsize } = statfsSync(rig.folder)
    assert.ok(bavail * bsize < 1.2 * MIB, `${bavail * bsize} bytes left`)
    const { blockBytes, sizeBytes } = rig.disk()
    assert.is(sizeBytes, before.sizeBytes)
    assert.ok(blockBytes >= before.blockBytes && blockBytes <= 24 * MIB, `${blockBytes} bytes`)
  })
}

const asService = skipUnless(
  test,
  hasLoopDevices && existsSync('/usr/bin/systemd-analyze'),
  'needs root, loop devices and systemd-analyze',
)

asService(
  'the systemd unit has the name that systemd gives it, and systemd finds no fault with it',
  async () => {
    await using rig = await volumeRig()
    const modelsDir = rig.path('50% of – models')

    const { stdout } = await rig.volume('status', '--unit', '--models-dir', modelsDir)

    const folder = join(modelsDir, 'core')
    const name = must('systemd-escape', '--path', '--suffix=mount', folder).trim()
    assert.ok(stdout.startsWith(`# /etc/systemd/system/${name}\n`), stdout)
    writeFileSync(rig.path(name), stdout)
    writeFileSync(rig.path('ransomeye-trainer.service'), '[Service]\nType=oneshot\nExecStart=/bin/true\n')
    const verified = spawnSync('systemd-analyze', ['verify', '--recursive-errors=yes', rig.path(name)], {
      encoding: 'utf8',
    })
    assert.is(verified.status, 0, verified.stderr)
    assert.is(verified.stderr, '')
    assert.match(stdout, '\nOptions=loop,nodev,nosuid\n')
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
    /Cannot mount core's volume over .*: manifest\.json there .* delete .*core\.img/,
  )
  assert.is(kept.exitCode, 3)
  assert.match(kept.stderr, /beneath core's volume: manifest\.json there /)
  must('umount', rig.folder)
  assert.ok(readFileSync(join(rig.folder, 'manifest.json'), 'utf8').endsWith(' '))
})

mounting('a volume in use is not unmounted; it keeps its models, and the space beneath is free', async () => {
  await using rig = await volumeRig()
  await publishVersion(rig, 1)
  await rig.volume('create')
  const user = spawn('sleep', ['60'], { cwd: rig.folder })

  const { exitCode, stderr } = await rig.volume('remove')

  user.kill()
  assert.is(exitCode, 3)
  assert.match(stderr, /target is busy.*fuser/)
  assert.ok(readFileSync(join(rig.folder, 'core.onnx')).equals(versionOf(1).model))
  must('umount', rig.folder)
  assert.equal(readdirSync(rig.folder), [])
})

test.run()
