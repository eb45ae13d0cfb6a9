/**
 * Power cuts: a publication is stopped at a system call, the image of its filesystem copied as it is on disk at that
 * moment, and the copy mounted. In a sweep at every call of a set of 35 files, in a sample at a few.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { checkPublished } from '../../lib/models.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { isSweep, programOf } from '../support/places.ts'
import { sha256Of, startAgain, trainAndPublish, writeFiles } from '../support/publishing.ts'
import { type Sandbox, sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

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

const kinds: [kind: string, mb: number, mkfs: string[]][] = [
  ['ext4', 32, ['mkfs.ext4', '-q', '-F']],
  ['xfs', 320, ['mkfs.xfs', '-q', '-f']],
  ['btrfs', 128, ['mkfs.btrfs', '-q', '-f']],
]

for (const [kind, mb, mkfs] of kinds) {
  skipUnless(
    test,
    canUse(kind, mkfs[0]!),
    `needs root, strace and ${mkfs[0]}`,
  )(
    `a power cut while a model is published on ${kind} leaves the old set or the new, as its manifest says`,
    async () => {
      await using box = await sandbox()
      makeTemplate(box, mb, mkfs)
      await withMounted(box, 'template', async jobDir => {
        await trainAndPublish(jobDir, setOf('old'))
        writeFiles(join(jobDir, 'work'), setOf('new'))
      })
      const outcomes: string[] = []

      for (const point of isSweep ? everyPoint() : sample) {
        const outcome = await cutAt(box, point)
        if (outcome) outcomes.push(outcome)
        else if (isSweep) passed.add(point[0])
      }
      passed.clear()

      assert.ok(outcomes.length >= (isSweep ? 70 : sample.length), `${outcomes.length} points`)
      assert.ok(outcomes.includes('old') && outcomes.includes('new'), outcomes.join())
    },
  )
}

/** Calls of which a publication has no more. */
const passed = new Set<string>()

function* everyPoint(): Generator<[call: string, when: number]> {
  for (const call of counted) for (let when = 1; !passed.has(call); when++) yield [call, when]
}

function canUse(kind: string, program: string): boolean {
  const isThere = (argv: string[]) => !spawnSync(argv[0]!, argv.slice(1)).error
  if (process.getuid?.() !== 0 || !isThere(['strace', '-V']) || !isThere([program, '-V'])) return false
  spawnSync('modprobe', [kind])
  return readFileSync('/proc/filesystems', 'utf8').split(/\s/).includes(kind)
}

function run(...argv: string[]): void {
  const { status, stderr } = spawnSync(argv[0]!, argv.slice(1), { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${argv.join(' ')}: ${stderr}`)
}

function makeTemplate(box: Sandbox, mb: number, mkfs: string[]): void {
  run('truncate', '-s', `${mb}M`, box.path('template'))
  run(...mkfs, box.path('template'))
  mkdirSync(box.path('mount'))
}

async function withMounted<T>(box: Sandbox, image: string, use: (jobDir: string) => Promise<T>): Promise<T> {
  const argv = ['-o', 'loop', box.path(image), box.path('mount')]
  await until('it can be mounted', () => spawnSync('mount', argv).status === 0)
  try {
    mkdirSync(box.path('mount/core'), { recursive: true })
    return await use(box.path('mount/core'))
  } finally {
    await until('it can be unmounted', () => spawnSync('umount', [box.path('mount')]).status === 0)
  }
}

/** @returns what is published after a power cut at this call; undefined if there is no such call */
async function cutAt(box: Sandbox, [call, when]: [string, number]): Promise<string | undefined> {
  // A file of its own each time: another mount namespace may still hold the last one mounted.
  const [image, crashed] = [`${call}-${when}`, `${call}-${when}-crashed`]
  run('cp', '--sparse=always', box.path('template'), box.path(image))
  try {
    const isCut = await withMounted(box, image, jobDir =>
      stopAt(box, jobDir, [call, when], () =>
        run('cp', '--sparse=always', box.path(image), box.path(crashed)),
      ),
    )
    return isCut ? await withMounted(box, crashed, assess) : undefined
  } finally {
    for (const name of [image, crashed]) rmSync(box.path(name), { force: true })
  }
}

/** Publish, and copy the image when the call comes. */
async function stopAt(
  box: Sandbox,
  jobDir: string,
  [call, when]: [string, number],
  copy: () => void,
): Promise<boolean> {
  const log = box.path('log')
  copyFileSync('/dev/null', log)
  const names = Object.keys(setOf('new')).filter(name => name.endsWith('.onnx'))
  const fault = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=STOP:when=${when}`]
  const program = [process.execPath, ...programOf('test/support/publisher.ts'), 'publish', jobDir, ...names]
  const child = spawn('strace', ['-f', '-qq', '-o', log, ...fault, ...program], {
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
    stdio: 'ignore',
  })
  const ended = once(child, 'exit')
  const stopped = () => /^(\d+) +--- stopped by SIGSTOP/m.exec(readFileSync(log, 'utf8'))?.[1]
  await until('it stops or ends', () => stopped() !== undefined || child.exitCode !== null, 30_000)
  const isCut = stopped() !== undefined
  if (isCut) copy()
  else assert.is(child.exitCode, 0)
  if (isCut) for (const pid of tracedBy(child.pid!)) process.kill(pid, 'SIGKILL')
  await ended
  return isCut
}

function tracedBy(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return children.split(' ').filter(Boolean).map(Number)
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
