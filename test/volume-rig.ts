import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { type Ended, type FakeTrainer, type Rig, trainerRig } from './rig.ts'

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

export type VolumeRig = Rig & {
  /** core's folder. */
  folder: string
  image: string
  /** scripts/volume.ts with this command for core. */
  volume: (command: string, ...args: string[]) => Promise<Ended>
  /** What the image takes of the disk, and the most of it that could be read. */
  disk: () => { blockBytes: number; sizeBytes: number }
}

/** A rig for core's volume; whatever a test leaves mounted or attached goes with it. */
export async function volumeRig({
  maxDiskMb = 24,
  trainer,
}: {
  maxDiskMb?: number
  trainer?: FakeTrainer
} = {}): Promise<VolumeRig> {
  const core = { maxDiskMb, minFreeMb: 1, ...(trainer !== undefined && { trainer }) }
  const rig = await trainerRig({ core })
  const image = rig.path('models', '.trainer', 'volumes', 'core.img')
  return {
    ...rig,
    image,
    folder: rig.path('models', 'core'),
    volume: (command, ...args) => rig.run([command, 'core', ...args], { script: 'scripts/volume.ts' }),
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
