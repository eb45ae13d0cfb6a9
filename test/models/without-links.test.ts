/**
 * A real filesystem without links, vfat or exfat: models are published file by file. A process is killed at its system
 * calls, and the power cut: the image is copied as it is on disk while a process stands still, and the copy mounted.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { TrainerError } from '../../lib/errors.ts'
import { formerGeneration } from '../../lib/models/rollback.ts'
import { verifyPublished } from '../../lib/models/verify.ts'
import { checkPublished } from '../../lib/models.ts'
import { canMount, cutAt, type Disk, makeImage, type Point, withMounted } from '../support/crash-image.ts'
import { type Assess, canTrace, type Outcome, sweepAll } from '../support/faults.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import {
  filesBelow,
  readManifest,
  rejection,
  sha256Of,
  startAgain,
  trainAndPublish,
  writeFiles,
} from '../support/publishing.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { hasLoopDevices } from '../support/volume-rig.ts'

/** exfat by FUSE wants a block device. */
const mountExfat = 'exec mount.exfat-fuse "$(losetup --find --show "$1")" "$2"'
const disks: Disk[] = [
  { kind: 'vfat', mb: 32, mkfs: ['mkfs.vfat'], mount: ['mount', '-o', 'loop'] },
  { kind: 'exfat', mb: 32, mkfs: ['mkfs.exfat'], mount: ['sh', '-c', mountExfat, 'sh'] },
]
const hasExfat = hasLoopDevices && existsSync('/dev/fuse') && !spawnSync('mount.exfat-fuse', ['-V']).error
const disk = disks.find(it => (it.kind === 'exfat' ? hasExfat : hasLoopDevices && canMount(it)))
const canTry = disk !== undefined && canTrace
const needs = 'needs root, a loop device, strace, and vfat in the kernel or exfat-fuse and exfatprogs'
const flatTest = skipUnless(test, canTry, needs)
const tryInSweep = skipUnless(inSweep, canTry, needs)

function setOf(producer: string): Record<string, Buffer | string> {
  return {
    'w.bin': `${producer} weights`,
    'core.onnx': onnxModel({ producer, external: [{ location: 'w.bin' }] }),
    'sub/0.onnx': onnxModel({ producer: `${producer} 0` }),
  }
}

const publishNext = ['publish', 'core.onnx', 'sub/0.onnx']

/** The old set is published in a folder, the new one is in its `work/`. */
async function prepare(dir: string): Promise<void> {
  mkdirSync(dir, { recursive: true })
  await trainAndPublish(dir, setOf('old'))
  writeFiles(join(dir, 'work'), setOf('new'))
}

/** The model is the old one or the new, whole, with data of its own. */
function assertUsable(dir: string): void {
  const model = readFileSync(join(dir, 'core.onnx'))
  const isOld = model.equals(setOf('old')['core.onnx'] as Buffer)
  const [name, content] = isOld ? ['w.bin', 'old weights'] : ['w-1.bin', 'new weights']
  assert.ok(isOld || model.includes('w-1.bin'))
  assert.is(readFileSync(join(dir, name!), 'utf8'), content)
}

/** One of the sets is published, as its manifest says. */
async function assertSettled(dir: string): Promise<Outcome> {
  const { missing, adopt, reason } = await checkPublished(dir, ['**/*.onnx'])
  assert.equal({ missing, adopt }, { missing: false, adopt: [] }, reason)
  for (const [name, sha256] of Object.entries(readManifest(dir).files))
    assert.is(sha256Of(readFileSync(join(dir, name))), sha256)
  const second = readFileSync(join(dir, 'sub/0.onnx'))
  const isOld = second.equals(setOf('old')['sub/0.onnx'] as Buffer)
  assert.is(readFileSync(join(dir, 'core.onnx')).includes('old'), isOld)
  return isOld ? 'old' : 'new'
}

flatTest(
  'without links models are published file by file, a run says so, and there is no way back',
  async () => {
    await using box = await sandbox()
    makeImage(box, 'image', disk!)
    await withMounted(box, 'image', disk!, async dir => {
      const said: string[] = []
      const warn = (message: string) => said.push(message)
      for (const producer of ['old', 'new'])
        await trainAndPublish(dir, setOf(producer), { options: { warn } })
      const before = filesBelow(dir)
      await startAgain(dir)

      assert.is(said.length, 2)
      assert.match(said[0]!, /has no links, so models are published file by file/)
      assert.equal(before, ['core.onnx', 'manifest.json', 'sub/0.onnx', 'w-1.bin', 'w.bin'])
      assert.equal(filesBelow(dir), ['core.onnx', 'manifest.json', 'sub/0.onnx', 'w-1.bin'])
      assert.is(await assertSettled(dir), 'new')
      assert.equal((await verifyPublished(dir, ['**/*.onnx'])).differences, [])
      const error = (await rejection(
        Promise.resolve().then(() => formerGeneration('core', dir)),
      )) as TrainerError
      assert.match(error.message, /^Cannot roll back core: no generation before the current one is kept/)
    })
  },
)

flatTest("without links an operator's own model is adopted where it is", async () => {
  await using box = await sandbox()
  makeImage(box, 'image', disk!)
  await withMounted(box, 'image', disk!, async dir => {
    writeFiles(dir, { 'core.onnx': onnxModel({ producer: 'theirs' }) })

    await startAgain(dir)

    const { missing, adopted, adopt } = await checkPublished(dir, ['**/*.onnx'])
    assert.equal({ missing, adopted, adopt }, { missing: false, adopted: ['core.onnx'], adopt: [] })
    assert.equal(filesBelow(dir), ['core.onnx', 'manifest.json'])
    assert.not(existsSync(join(dir, 'generations/next')))
  })
})

tryInSweep(
  'without links a publication that is killed leaves usable models, and the next start one set',
  async () => {
    await using box = await sandbox()
    makeImage(box, 'image', disk!)
    await withMounted(box, 'image', disk!, async parent => {
      let points = 0
      const assess: Assess = async ({ dir }, { signal }) => {
        assert.is(signal, 'SIGKILL')
        assertUsable(dir)
        await startAgain(dir)
        assertUsable(dir)
        return assertSettled(dir)
      }
      const prepareNext = async (): Promise<Sandbox> => {
        const dir = join(parent, String(points++))
        await prepare(dir)
        return {
          dir,
          path: (...names) => join(dir, ...names),
          [Symbol.asyncDispose]: async () => rmSync(dir, { recursive: true }),
        }
      }

      const sweep = { fault: 'signal=KILL', prepare: prepareNext, command: publishNext, assess }
      const outcomes = (await sweepAll(sweep)).flatMap(([, seen]) => seen)

      assert.ok(outcomes.length >= 20, `${outcomes.length} points`)
      assert.ok(outcomes.includes('old') && outcomes.includes('new'), outcomes.join())
    })
  },
)

tryInSweep('without links a power cut leaves what is valid, or what the next training repairs', async () => {
  await using box = await sandbox()
  makeImage(box, 'template', disk!)
  await withMounted(box, 'template', disk!, prepare)
  let cuts = 0

  for (const call of ['fsync', 'rename', 'unlink']) {
    const point: Point = [call, 0]
    for (const crashed of await cutAt(box, 'template', disk!, point, publishNext)) {
      cuts++
      await withMounted(box, crashed, disk!, async dir => {
        await startAgain(dir)
        const { missing } = await checkPublished(dir, ['**/*.onnx'])
        if (missing) await trainAndPublish(dir, setOf('new'))
        await assertSettled(dir)
      })
    }
  }

  assert.ok(cuts >= 10, `${cuts} cuts`)
})

test.run()
