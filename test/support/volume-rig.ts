import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { TrainerError } from '../../lib/errors.ts'
import type { QuotaSettings } from '../../lib/quotas.ts'
import { manageVolume } from '../../scripts/volume.ts'
import { type FakeTrainer, type Rig, trainerRig } from './rig.ts'

/** Can volumes be mounted here? */
export const hasLoopDevices =
  process.getuid?.() === 0 && spawnSync('losetup', ['--find'], { stdio: 'ignore' }).status === 0

/** The options of a mount, if something is mounted there. */
export function mountOptions(path: string): string | undefined {
  return mounts().findLast(it => it.path === path)?.options
}

function mounts(): { path: string; options: string }[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')
  return lines.map(line => ({ path: line.split(' ')[4]!, options: line.split(' ')[5]! }))
}

/** Run a program that must not fail. */
export function must(program: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw error ?? new Error(`${program} ${args.join(' ')}: ${stderr}`)
  return stdout
}

type Outcome = { exitCode: number; stdout: string; stderr: string }

export type VolumeRig = Rig & {
  /** core's folder. */
  folder: string
  image: string
  /** scripts/volume.ts with this command for core, in this process: half of it would be the start of another. */
  volume: (command: string, ...options: string[]) => Promise<Outcome>
  /** Bytes that the image takes of the disk, and the most of it that could be read. */
  disk: () => { blockBytes: number; sizeBytes: number }
}

type RigOptions = Partial<QuotaSettings> & { trainer?: FakeTrainer }

/** A rig for core's volume; whatever a test leaves mounted or attached goes with it. */
export async function volumeRig(options: RigOptions = {}): Promise<VolumeRig> {
  const core = { maxDiskMb: 24, minFreeMb: 1, ...options }
  const rig = await trainerRig({ core })
  const image = rig.path('models', '.trainer', 'volumes', 'core.img')
  return {
    ...rig,
    image,
    folder: rig.path('models', 'core'),
    volume: (command, ...options) =>
      manage([
        '--quotas',
        rig.path('quotas.json'),
        '--models-dir',
        rig.modelsDir,
        command,
        'core',
        ...options,
      ]),
    disk: () => {
      const { size, blocks } = statSync(image)
      return { blockBytes: blocks * 512, sizeBytes: size }
    },
    async [Symbol.asyncDispose]() {
      clear(rig.dir)
      await rig[Symbol.asyncDispose]()
    },
  }
}

/** A rig whose volume is there. */
export async function createdRig(options?: RigOptions): Promise<VolumeRig> {
  const rig = await volumeRig(options)
  const { exitCode, stderr } = await rig.volume('create')
  if (exitCode === 0) return rig
  await rig[Symbol.asyncDispose]()
  throw new Error(stderr)
}

async function manage(args: string[]): Promise<Outcome> {
  let stdout = ''
  const print = (line: string) => {
    stdout += `${line}\n`
  }
  try {
    print(await manageVolume(args, print))
    return { exitCode: 0, stdout, stderr: '' }
  } catch (error) {
    if (!(error instanceof TrainerError)) throw error
    return { exitCode: error.exitCode, stdout, stderr: error.message }
  }
}

function clear(dir: string): void {
  for (const { path } of mounts().reverse()) {
    if (path.startsWith(`${dir}/`)) spawnSync('umount', ['--lazy', path])
  }
  const devices = spawnSync('losetup', ['--list', '--noheadings', '--output', 'NAME,BACK-FILE'], {
    encoding: 'utf8',
  })
  for (const line of devices.stdout.split('\n')) {
    const [device, file = ''] = line.trim().split(/\s+/)
    if (file.startsWith(`${dir}/`)) spawnSync('losetup', ['--detach', device!])
  }
}
