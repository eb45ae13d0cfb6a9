/**
 * Power cuts: a publication is stopped at a system call, the image of its filesystem copied as it is on disk at that
 * moment, and the copy mounted. In a sweep at every call of a set of 35 files, in a sample at a few.
 */
import { existsSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { checkPublished } from '../../lib/models.ts'
import { canMount, copyImage, type Disk, makeImage, stopAt, withMounted } from '../support/crash-image.ts'
import { canTrace } from '../support/faults.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { isSweep } from '../support/places.ts'
import { sha256Of, startAgain, trainAndPublish, writeFiles } from '../support/publishing.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, sampled, test } from '../support/test.ts'

const globs = ['**/*.onnx']
/** Of a set of fourteen files a publication has some seventy calls: two hundred points on three filesystems. */
const extras = Array.from({ length: isSweep ? 12 : 1 }, (_, index) => `sub/${index}.onnx`)
const counted = ['fsync', 'rename', 'mkdir', 'link', 'symlink', 'unlink', 'chmod']
/** In a sample: before the switch, at it, and among the flat names. */
const sample: [call: string, when: number][] = [
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

const mount = ['mount', '-o', 'loop']
const disks: Disk[] = [
  { kind: 'ext4', mb: 32, mkfs: ['mkfs.ext4', '-q', '-F'], mount },
  // A copy has the name of its original, which another mount namespace may still hold.
  { kind: 'xfs', mb: 320, mkfs: ['mkfs.xfs', '-q', '-f'], mount: ['mount', '-o', 'loop,nouuid'] },
  { kind: 'btrfs', mb: 128, mkfs: ['mkfs.btrfs', '-q', '-f'], mount },
]

/** Of a sweep all begin at once: each waits for its disk most of the time. */
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

      assert.ok(outcomes.length >= (isSweep ? 70 : sample.length), `${outcomes.length} points`)
      assert.ok(outcomes.includes('old') && outcomes.includes('new'), outcomes.join())
    },
  )
}

/** Cut the power at each point. */
async function cutAll(disk: Disk): Promise<string[]> {
  await using box = await sandbox()
  makeImage(box, 'template', disk)
  await withMounted(box, 'template', disk, async jobDir => {
    await trainAndPublish(jobDir, setOf('old'))
    writeFiles(join(jobDir, 'work'), setOf('new'))
  })
  const outcomes: string[] = []
  /** Calls of which a publication has no more. */
  const passed = new Set<string>()
  for (const point of isSweep ? everyPoint(passed) : sample) {
    const outcome = await cutAt(box, disk, point)
    if (outcome) outcomes.push(outcome)
    else passed.add(point[0])
  }
  return outcomes
}

function* everyPoint(passed: Set<string>): Generator<[call: string, when: number]> {
  for (const call of counted) for (let when = 1; !passed.has(call); when++) yield [call, when]
}

const publishNext = ['publish', ...Object.keys(setOf('new')).filter(name => name.endsWith('.onnx'))]

/** @returns what is published after a power cut at this call; undefined if there is no such call */
async function cutAt(box: Sandbox, disk: Disk, point: [string, number]): Promise<string | undefined> {
  // A file of its own each time: another mount namespace may still hold the last one mounted.
  const [image, crashed] = [`${point.join('-')}`, `${point.join('-')}-crashed`]
  copyImage(box, 'template', image)
  try {
    const isCut = await withMounted(box, image, disk, jobDir =>
      stopAt(box, jobDir, point, publishNext, () => copyImage(box, image, crashed)),
    )
    return isCut ? await withMounted(box, crashed, disk, assess) : undefined
  } finally {
    for (const name of [image, crashed]) rmSync(box.path(name), { force: true })
  }
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
