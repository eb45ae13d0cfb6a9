import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { takeLock } from '../../lib/run/lock.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { hasLoopDevices, mountOptions, must, volumeRig } from '../support/volume-rig.ts'

const mounting = skipUnless(test, hasLoopDevices, 'needs root and loop devices')
const mountingInSweep = skipUnless(inSweep, hasLoopDevices, 'needs root and loop devices')
const script = 'scripts/volume.ts'

inSweep('wrong usage ends with 64 and says what is right', async () => {
  await using rig = await volumeRig()
  const faults: [args: string[], said: RegExp][] = [
    [[], /No command; the commands are create, mount, unmount, remove, status/],
    [['crate', 'core'], /Unknown command "crate".*did you mean create\?/],
    [
      ['create'],
      /Name one job, as in node --import tsx scripts\/volume\.ts create core; the jobs are core, dpi, agent/,
    ],
    [['create', 'core', 'dpi'], /Name one job/],
    [['create', 'cor'], /Unknown job "cor".*did you mean core\?/],
  ]

  const ended = await Promise.all(faults.map(([args]) => rig.run(args, { script })))

  for (const [index, { exitCode, stderr, stdout }] of ended.entries()) {
    assert.is(exitCode, 64)
    assert.match(stderr, faults[index]![1])
    assert.is(stdout, '')
  }
  assert.not(existsSync(rig.modelsDir))
})

skipUnless(
  test,
  process.getuid?.() === 0,
  'needs root',
)('whoever is not root is told so, with 64', async () => {
  await using rig = await volumeRig()
  const prefix = ['unshare', '--user', '--map-user=1000']

  const create = await rig.run(['create', 'core'], { script, prefix })
  const status = await rig.run(['status', 'core'], { script, prefix })

  assert.equal([create.exitCode, status.exitCode], [64, 64])
  assert.match(create.stderr, /Cannot create core's volume: only root can; use sudo/)
  assert.match(status.stderr, /Cannot look at core's volume: only root can; use sudo/)
})

mounting('a volume with another mount in it is not unmounted, and the command ends', async () => {
  await using rig = await volumeRig()
  await rig.volume('create')
  mkdirSync(join(rig.folder, 'data'))
  must('mount', '-t', 'tmpfs', 'theirs', join(rig.folder, 'data'))

  const { exitCode, stderr } = await rig.run(['unmount', 'core'], { script })

  must('umount', join(rig.folder, 'data'))
  assert.is(exitCode, 3)
  assert.match(stderr, /Cannot unmount core's volume: .*busy/)
  assert.ok(mountOptions(rig.folder))
})

mounting('a copy of a volume that finds no room leaves nothing behind', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.modelsDir)
  must('mount', '-t', 'tmpfs', '-o', 'size=110m,nr_inodes=60', 'tmpfs', rig.modelsDir)
  await rig.volume('create')
  for (let n = 0; n < 100; n++) writeFileSync(join(rig.folder, `${n}.bin`), 'x')

  const { exitCode, stderr } = await rig.volume('unmount')

  assert.is(exitCode, 3)
  assert.match(stderr, /No space left on device/)
  assert.equal(readdirSync(dirname(rig.image)), ['core.img'])
})

mounting('a command that fails leaves root nothing that the service would stumble over', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.modelsDir)
  chownSync(rig.modelsDir, 1234, 1234)

  const ended = [await rig.volume('mount'), await rig.volume('create', '--owner', 'nobody-of-that-name')]

  assert.equal(
    ended.map(it => it.exitCode),
    [3, 64],
  )
  for (const name of ['.trainer', '.trainer/lock'])
    assert.is(statSync(join(rig.modelsDir, name)).uid, 1234, name)
})

mounting('a quota that is too small for a filesystem ends with 78', async () => {
  await using rig = await volumeRig({ maxDiskMb: 15 })

  const { exitCode, stderr } = await rig.volume('create')

  assert.is(exitCode, 78)
  assert.match(stderr, /maxDiskMb is 15, at least 16 are needed/)
})

mounting('an owner that is no user of the machine ends with 64', async () => {
  await using rig = await volumeRig()

  const { exitCode, stderr } = await rig.volume('create', '--owner', 'nobody-of-that-name')

  assert.is(exitCode, 64)
  assert.match(stderr, /--owner is "nobody-of-that-name"/)
  assert.not(existsSync(rig.image))
})

mounting('while a run holds the lock nothing is changed: 75, naming it; status works', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.path('models', '.trainer'), { recursive: true })
  const lock = await takeLock(rig.path('models', '.trainer'))

  const { exitCode, stderr } = await rig.volume('create')
  const status = await rig.volume('status')

  lock.release()
  assert.is(exitCode, 75)
  assert.match(stderr, `pid ${process.pid}`)
  assert.is(status.exitCode, 0)
  assert.not(existsSync(dirname(rig.image)))
})

mounting('too little space on the disk ends with 3 and both figures', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.modelsDir)
  must('mount', '-t', 'tmpfs', '-o', 'size=50m', 'tmpfs', rig.modelsDir)

  const { exitCode, stderr } = await rig.volume('create')

  assert.is(exitCode, 3)
  assert.match(stderr, /50(\.0)? MiB free on .*models, 88(\.0)? MiB needed/)
  assert.equal(readdirSync(dirname(rig.image)), [])
})

mounting('another filesystem on the folder is left alone', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.folder, { recursive: true })
  must('mount', '-t', 'tmpfs', 'foreign', rig.folder)
  writeFileSync(join(rig.folder, 'core.onnx'), 'theirs')

  const ended = []
  for (const command of ['status', 'create', 'mount', 'unmount', 'remove'])
    ended.push(await rig.volume(command))

  for (const { exitCode, stderr } of ended) {
    assert.is(exitCode, 3)
    assert.match(stderr, `for core's volume: foreign is mounted on it; unmount that: umount ${rig.folder}`)
  }
  assert.is(readFileSync(join(rig.folder, 'core.onnx'), 'utf8'), 'theirs')
})

const foreigners: [name: string, reason: RegExp, make: (image: string) => void][] = [
  ['a text', /it was not made here/, image => writeFileSync(image, 'theirs')],
  [
    'another ext4',
    /it was not made here/,
    image => {
      writeFileSync(image, '')
      truncateSync(image, 24 * 2 ** 20)
      must('mkfs.ext4', '-q', '-L', 'ransomeye-core', image)
    },
  ],
  ['a symbolic link', /is a symbolic link/, image => symlinkSync('/etc/hostname', image)],
  ['a folder', /is a folder/, image => mkdirSync(image)],
]

for (const [name, reason, make] of foreigners) {
  mounting(`${name} in the place of the image is left alone`, async () => {
    await using rig = await volumeRig()
    mkdirSync(dirname(rig.image), { recursive: true, mode: 0o700 })
    make(rig.image)
    const before = must('stat', '--format=%i %s %y', rig.image)

    const ended = [await rig.volume('create'), await rig.volume('mount'), await rig.volume('remove')]

    for (const { exitCode, stderr } of ended) {
      assert.is(exitCode, 3)
      assert.match(stderr, reason)
      assert.match(stderr, rig.image)
    }
    assert.is(must('stat', '--format=%i %s %y', rig.image), before)
  })
}

mounting('a folder of images that others can write to is not trusted', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.path('elsewhere'))
  mkdirSync(rig.path('models', '.trainer'), { recursive: true })
  symlinkSync(rig.path('elsewhere'), dirname(rig.image))

  const { exitCode, stderr } = await rig.volume('create')

  assert.is(exitCode, 3)
  assert.match(stderr, /volumes: it must be a folder that only root can write to/)
  assert.equal(readdirSync(rig.path('elsewhere')), [])
})

mountingInSweep(
  'an image that is attached elsewhere is neither mounted a second time nor deleted',
  async () => {
    await using rig = await volumeRig()
    await rig.volume('create')
    must('umount', rig.folder)
    const device = must('losetup', '--find', '--show', rig.image).trim()

    const ended = [await rig.volume('mount'), await rig.volume('remove')]

    for (const { exitCode, stderr } of ended) {
      assert.is(exitCode, 3)
      assert.match(stderr, new RegExp(`core\\.img is attached to ${device}`))
    }
    assert.ok(existsSync(rig.image))
    assert.is(mountOptions(rig.folder), undefined)
  },
)

mountingInSweep('an image of another quota, smaller or larger, is not used for this one', async () => {
  await using rig = await volumeRig()
  await rig.volume('create')
  const quotas = readFileSync(rig.path('quotas.json'), 'utf8')
  const createFor = (maxDiskMb: number) => {
    writeFileSync(rig.path('quotas.json'), quotas.replace('"maxDiskMb":24', `"maxDiskMb":${maxDiskMb}`))
    return rig.volume('create')
  }

  const raised = await createFor(48)
  const lowered = await createFor(20)
  const status = await rig.volume('status')

  assert.equal([raised.exitCode, lowered.exitCode], [3, 3])
  const remedy = 'remove the volume and create it anew'
  assert.match(
    raised.stderr,
    `is smaller than its quota of 48 MiB needs, 24.0 MiB instead of 48.0 MiB; ${remedy}`,
  )
  assert.match(
    lowered.stderr,
    `is larger than its quota of 20 MiB needs, 24.0 MiB instead of 20.0 MiB; ${remedy}`,
  )
  assert.match(status.stdout, /LARGER than the quota/)
})

mounting('status prints no unit without a volume', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.modelsDir)

  const { exitCode, stdout, stderr } = await rig.volume('status', '--unit')

  assert.equal([exitCode, stdout], [3, ''])
  assert.is(
    stderr,
    'There is no unit for core: it has no volume; make one by node --import tsx scripts/volume.ts create core',
  )
})

mounting('mount without a volume ends with 3; unmount and remove have nothing to do', async () => {
  await using rig = await volumeRig()
  mkdirSync(rig.folder, { recursive: true })

  const mounted = await rig.volume('mount')
  const rest = [await rig.volume('unmount'), await rig.volume('remove')]

  assert.is(mounted.exitCode, 3)
  assert.match(mounted.stderr, /there is no .*core\.img; create it/)
  assert.equal(
    rest.map(({ exitCode }) => exitCode),
    [0, 0],
  )
})

test.run()
