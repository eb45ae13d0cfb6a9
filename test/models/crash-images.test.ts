/**
 * Power cuts: a publication is stopped at a system call, the image of its filesystem copied as it is on disk at that
 * moment, and the copy mounted. In a sweep at every call, in a sample at a few.
 */
import { existsSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { checkPublished } from '../../lib/models.ts'
import { canMount, cutAt, type Disk, makeImage, type Point, withMounted } from '../support/crash-image.ts'
import { canTrace } from '../support/faults.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { isSweep } from '../support/places.ts'
import { sha256Of, startAgain, trainAndPublish, writeFiles } from '../support/publishing.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, sampled, test } from '../support/test.ts'

const globs = ['**/*.onnx']
/** Each more makes as many calls more, of kinds that are there already. */
const extras = Array.from({ length: isSweep ? 5 : 1 }, (_, index) => `sub/${index}.onnx`)
const counted = ['fsync', 'rename', 'mkdir', 'link', 'symlink', 'unlink', 'chmod']
/** In a sample: before the switch, at it, and among the flat names. */
const sample: Point[] = [
  ['fsync', 6],
  ['rename', 5],
  ['link', 2],
]

function setOf(producer: string): Record<string, Buffer | string> {
  return {
    'w.bin': `${producer} weights`,
    'core.onnx': onnxModel({ producer, external: [{ location: 'w.bin' }] }),
    ...Object.fromEntries(extras.map(name => [name, onnxModel({ producer: `${producer} ${name}` })])),
  }
}

/** Nothing comes to the disk because time has passed. */
const mount = ['mount', '-o', 'loop,commit=600']
const disks: Disk[] = [
  { kind: 'ext4', mb: 32, mkfs: ['mkfs.ext4', '-q', '-F'], mount },
  // A copy has the name of its original, which another mount namespace may still hold.
  { kind: 'xfs', mb: 320, mkfs: ['mkfs.xfs', '-q', '-f'], mount: ['mount', '-o', 'loop,nouuid'] },
  { kind: 'btrfs', mb: 128, mkfs: ['mkfs.btrfs', '-q', '-f'], mount },
]

/** All points of a sweep begin at once: each waits for its disk most of the time. */
const begun = new Map<Disk, Promise<string[]>>()

for (const disk of disks) {
  const [mkfs] = disk.mkfs
  const isHere = canTrace && canMount(disk)
  if (isSweep && isHere) {
    const outcomes = cutAll(disk)
    outcomes.catch(() => {}) // the test of it says so
    begun.set(disk, outcomes)
  }
  skipUnless(
    disk.kind === 'ext4' ? sampled : inSweep,
    isHere,
    `needs root, strace, ${mkfs} and ${disk.kind}`,
  )(
    `a power cut while a model is published on ${disk.kind} leaves the old set or the new, as its manifest says`,
    async () => {
      const outcomes = await (begun.get(disk) ?? cutAll(disk))

      assert.ok(outcomes.length >= (isSweep ? 50 : sample.length), `${outcomes.length} points`)
      assert.ok(outcomes.includes('old') && outcomes.includes('new'), outcomes.join())
    },
  )
}

const publishNext = ['publish', ...Object.keys(setOf('new')).filter(name => name.endsWith('.onnx'))]

/** Cut the power at each point; @returns what is published after each */
async function cutAll(disk: Disk): Promise<string[]> {
  await using box = await sandbox()
  makeImage(box, 'template', disk)
  await withMounted(box, 'template', disk, async jobDir => {
    await trainAndPublish(jobDir, setOf('old'))
    writeFiles(join(jobDir, 'work'), setOf('new'))
  })
  const outcomes: string[] = []
  for (const point of isSweep ? counted.map((call): Point => [call, 0]) : sample) {
    const crashed = await cutAt(box, 'template', disk, point, publishNext)
    for (const image of crashed) outcomes.push(await withMounted(box, image, disk, assess))
    for (const image of crashed) rmSync(box.path(image))
  }
  return outcomes
}

async function assess(jobDir: string): Promise<string> {
  const outcome = readlinkSync(join(jobDir, 'current')) === 'generations/1' ? 'old' : 'new'
  assertAsManifest(join(jobDir, 'current'))
  const flat = readFileSync(join(jobDir, 'core.onnx'))
  const isOld = flat.equals(setOf('old')['core.onnx'] as Buffer)
  assert.is(
    readFileSync(join(jobDir, isOld ? 'w.bin' : 'w-2.bin'), 'utf8'),
    `${isOld ? 'old' : 'new'} weights`,
  )
  await startAgain(jobDir, globs)
  assertAsManifest(jobDir)
  assert.equal((await checkPublished(jobDir, globs)).missing, false)
  assert.not(existsSync(join(jobDir, 'current.next')))
  return outcome
}

function assertAsManifest(dir: string): void {
  const { files } = JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8'))
  for (const [name, sha256] of Object.entries(files))
    assert.is(sha256Of(readFileSync(join(dir, name))), sha256, name)
}

test.run()
