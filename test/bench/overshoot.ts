import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { checkUsage } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { root } from '../support/places.ts'
import { type Rig, trainerRig } from '../support/rig.ts'
import { untilEnd } from './process.ts'
import { inTurns, runProgram } from './rounds.ts'
import { makeFiles } from './storage.ts'
import { type Bench, formatOvershoot, type Row } from './table.ts'
import { BURST, type Writer, writers } from './writers.ts'

const ROUNDS = 3
const volumeScript = 'scripts/volume.ts'

/** How far writers at full speed get above their quota: the most of all rounds, since a quota is no average. */
export async function* measureOvershoot({ signal }: Bench): AsyncGenerator<Row> {
  const canCap = process.getuid?.() === 0
  for (const writer of writers) {
    const { what, watchAimBytes, files } = writer
    const { loop, watch, kernel } = await inTurns(ROUNDS, signal, {
      loop: () => overshootOfLoop(writer, signal),
      watch: () => overshootOfRun(writer, signal, false),
      kernel: async () => (canCap && !files ? overshootOfRun(writer, signal, true) : Number.NaN),
    })
    const beside = { what: '`du` every second', value: Math.max(...loop) }
    const row = { beside, format: formatOvershoot }
    yield {
      what: `${what}: watched`,
      ours: Math.max(...watch),
      ...row,
      ...(watchAimBytes !== undefined && { aim: { atMost: watchAimBytes, of: 'ours' } }),
    }
    if (files) continue // a volume does not know how many there are
    yield canCap
      ? { what: `${what}: on a volume`, ours: Math.max(...kernel), ...row, aim: { atMost: 0, of: 'ours' } }
      : { what: `${what}: on a volume`, unmeasured: 'needs root' }
  }
}

async function overshootOfRun(writer: Writer, signal: AbortSignal, isCapped: boolean): Promise<number> {
  await using setting = await prepare(writer)
  const { rig, tempDir } = setting
  await using _volume = isCapped ? await makeVolume(rig, signal) : undefined
  const jobDir = join(rig.modelsDir, 'core')
  const ballast = await addBallast(join(jobDir, 'work'), writer)
  using sampler = await startSampler([ballast.watched ?? jobDir, tempDir])

  const { exitCode, events, stderr } = await untilEnd(rig.start(['core', '--json']), signal)
  const peakBytes = await sampler.stop()

  if (exitCode !== 2) throw new Error(`${writer.what}: the run ended with ${exitCode}: ${stderr}`)
  const start = events.find(it => it.event === 'job.start')
  if (start?.guarantee.startsWith('kernel') !== isCapped) throw new Error(`it ran under ${start?.guarantee}`)
  // Count what the program itself saw too: the sampler cannot look at every moment.
  const told = events.flatMap(it => (it.event === 'quota.exceeded' ? [it.usedBytes] : []))
  return above(writer.quotaMb * MIB, Math.max(peakBytes + ballast.bytes, ...told))
}

async function overshootOfLoop(writer: Writer, signal: AbortSignal): Promise<number> {
  await using setting = await prepare(writer)
  const { rig, tempDir } = setting
  const dir = rig.path('watched')
  mkdirSync(dir)
  const ballast = await addBallast(dir, writer)
  using sampler = await startSampler([ballast.watched ?? dir, tempDir])
  const command = [process.execPath, rig.path('core.mjs')]
  const env = { ...process.env, RANSOMEYE_OUTPUT_DIR: dir, RANSOMEYE_JOB: 'core' }
  const limitBytes = writer.quotaMb * MIB
  await runProgram([join(import.meta.dirname, 'du-loop.sh'), dir, String(limitBytes), ...command], signal, {
    env,
  })
  return above(limitBytes, (await sampler.stop()) + ballast.bytes)
}

/** Files that are there before; what is written then goes into a folder of its own, which the sampler sees in time. */
async function addBallast(
  dir: string,
  { files }: Writer,
): Promise<{ bytes: number; watched: string | undefined }> {
  if (!files) return { bytes: 0, watched: undefined }
  const watched = join(dir, BURST)
  mkdirSync(watched, { recursive: true })
  makeFiles(join(dir, 'before'), 0, files, '', '')
  return { bytes: await checkUsage(dir), watched }
}

function above(limitBytes: number, peakBytes: number): number {
  if (peakBytes < limitBytes / 2)
    throw new Error(`only ${peakBytes} bytes were ever seen: nothing was watched`)
  return Math.max(0, peakBytes - limitBytes)
}

/** A training's settings, and the folder in /tmp where it may leave temporary files. */
async function prepare({ quotaMb, trainer }: Writer) {
  const tempDir = `/tmp/ransomeye-bench-${process.pid}`
  const rig = await trainerRig({ core: { maxDiskMb: quotaMb, trainer: trainer(tempDir) } })
  return {
    rig,
    tempDir,
    async [Symbol.asyncDispose]() {
      rmSync(tempDir, { recursive: true, force: true })
      await rig[Symbol.asyncDispose]()
    },
  }
}

async function makeVolume(rig: Rig, signal: AbortSignal): Promise<AsyncDisposable> {
  const options = { script: volumeScript }
  const remove = () => rig.run(['remove', 'core'], options)
  const { exitCode, stderr } = await rig.run(['create', 'core'], options)
  if (exitCode === 0 && !signal.aborted) return { [Symbol.asyncDispose]: async () => void (await remove()) }
  await remove()
  throw new Error(`no volume: ${stderr}`)
}

async function startSampler(dirs: string[]): Promise<Disposable & { stop: () => Promise<number> }> {
  const script = join(import.meta.dirname, 'sampler.ts')
  const child = spawn(process.execPath, ['--import', 'tsx', script, ...dirs], {
    cwd: root,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await once(child.stdout, 'data') // it is looking now
  return {
    async stop() {
      const output = text(child.stdout)
      child.stdin.end()
      return Number(await output)
    },
    [Symbol.dispose]: () => child.kill(),
  }
}
