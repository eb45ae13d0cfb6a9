import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { capOf } from '../../lib/storage/capacity.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { createdRig, hasLoopDevices, mountOptions, must, volumeRig } from '../support/volume-rig.ts'

const MIB = 2 ** 20
const mounting = skipUnless(test, hasLoopDevices, 'needs root and loop devices')
const mountingInSweep = skipUnless(inSweep, hasLoopDevices, 'needs root and loop devices')

// The first of these tests: a loop device that has once refused to trim goes on refusing.
mountingInSweep(
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
    assert.match(stdout, /mounted on .*models\/core, 4 KiB of 17\d MiB used/)
    const { blockBytes, sizeBytes } = rig.disk()
    assert.ok(blockBytes <= 200 * MIB && blockBytes >= sizeBytes)
    const capBytes = capOf(rig.folder, 200 * MIB)
    assert.ok(capBytes && capBytes > 175 * MIB && capBytes <= sizeBytes)
    const options = mountOptions(rig.folder)!.split(',')
    assert.ok(options.includes('nodev') && options.includes('nosuid') && !options.includes('noexec'))
    assert.equal(readdirSync(rig.folder), [])
    assert.is(statSync(rig.folder).mode & 0o777, 0o750)
  },
)

mounting('a volume of 3 GiB leaves 2840 MiB for files, and an inode for each 4 KiB of it', async () => {
  await using rig = await createdRig({ maxDiskMb: 3072 })

  const { bavail, bsize, files } = statfsSync(rig.folder)

  assert.ok(bavail * bsize >= 2840 * MIB, `${bavail * bsize} bytes`)
  assert.ok(files >= 3000 * 256, `${files} inodes`)
  assert.ok(rig.disk().blockBytes <= 3072 * MIB)
})

mountingInSweep(
  'status tells of a trimmed image, and mount reserves it again without touching a file',
  async () => {
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
  },
)

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
    name === 'fallocate' ? test : inSweep,
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

test.run()
