/** Make a job's folder a filesystem no larger than its quota: node --import tsx scripts/volume.ts COMMAND JOB */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { TrainerError } from '../lib/errors.ts'
import { handOver, locateVolume, type Owner, type Volume } from '../lib/machine/volume/location.ts'
import { describeMounting, fileOf, mountUnit, removalOf } from '../lib/machine/volume/unit.ts'
import {
  createVolume,
  mountVolume,
  removeVolume,
  unmountVolume,
  type VolumeStatus,
  volumeError,
  volumeStatus,
} from '../lib/machine/volume.ts'
import type { JobName } from '../lib/quotas.ts'
import { takeLock } from '../lib/run/lock.ts'
import { openModelsDir } from '../lib/settings/folders.ts'
import { stateDirOf } from '../lib/settings/layout.ts'
import { didYouMean, type Program, readOptions } from '../lib/settings/options.ts'
import { chooseOneJob, placeOptions, readPlace } from '../lib/settings/place.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'
import { programRunner, type RunProgram } from '../lib/system/programs.ts'
import { nameCommand } from '../lib/system/start-command.ts'
import { formatBytes } from '../lib/text.ts'

const commands = ['create', 'mount', 'unmount', 'remove', 'status'] as const
type Command = (typeof commands)[number]

const options = {
  ...placeOptions,
  owner: {
    type: 'string',
    value: 'USER',
    help: 'create: whose it is (default: owner of the models folder)',
  },
  'keep-folder': {
    type: 'boolean',
    help: 'remove: an unmounted volume, with all that is in it',
  },
  json: { type: 'boolean', help: 'status: as one JSON object' },
  unit: {
    type: 'boolean',
    help: 'status: just the systemd unit that mounts it at boot',
  },
} as const

const program: Program<typeof options> = {
  name: 'scripts/volume.ts',
  summary: "Make a job's folder a filesystem of its own within its quota (root only).",
  positionals: 'COMMAND JOB',
  options,
  example: 'create core --owner ransomeye',
  notes: `Commands:
  create          make it with all that is in the folder; mount it; print a unit
  mount, unmount  over the folder, which keeps its files either way
  remove          unmount and delete it; the folder keeps its files
  status          what there is of it

Exit codes: 0 done, 2 models too large for it, 3 no space or not possible here,
64 wrong usage or not root, 75 a run goes on, 78 quota invalid or below 16 MiB`,
}

/**
 * Do what the command line says.
 *
 * @param print called with a line for each file that `create` deletes
 * @returns what to print at the end
 * @throws {TrainerError} of the options, the quotas, the lock or the volume
 */
export async function manageVolume(args: string[], print: (line: string) => void): Promise<string> {
  const read = readOptions(args, program)
  if (typeof read === 'string') return read
  const { values, positionals } = read
  const [command, job] = chooseCommand(positionals)
  const isStatus = command === 'status'
  const subject = `Cannot ${isStatus ? 'look at' : command} ${job}'s volume`
  if (process.getuid?.() !== 0) throw new TrainerError('usage', `${subject}: only root can; use sudo`)
  const { quotas, ...place } = readPlace(values)
  const modelsDir = openModelsDir(place.modelsDir, isStatus, !isStatus && command !== 'create')
  const stateDir = stateDirOf(modelsDir)
  const lock = isStatus ? undefined : await takeLock(stateDir)
  try {
    if (lock) handOver([stateDir, join(stateDir, 'lock')], statSync(modelsDir))
    const run = programRunner(lock?.fd)
    const volume = locateVolume(job, quotas.jobs[job], modelsDir, run)
    if (isStatus) {
      const status = await volumeStatus(volume)
      if (values.unit) return describeUnit(volume, status)
      return values.json ? JSON.stringify(status) : describeStatus(status)
    }
    const owner = values.owner === undefined ? undefined : await findUser(values.owner, run)
    return await change(command, volume, { owner, keepsFolder: values['keep-folder'] ?? false, print })
  } catch (cause) {
    throw volumeError(subject, cause)
  } finally {
    lock?.release()
  }
}

type Choices = { owner: Owner | undefined; keepsFolder: boolean; print: (line: string) => void }

async function change(
  command: Exclude<Command, 'status'>,
  volume: Volume,
  { owner, keepsFolder, print }: Choices,
): Promise<string> {
  const { job, folder, image } = volume
  switch (command) {
    case 'create':
      await createVolume(volume, owner, ({ path, bytes }) => print(`pruned ${path} (${formatBytes(bytes)})`))
      return `${describeStatus(await volumeStatus(volume))}\n\n${describeMounting(mountUnit(image, folder))}`
    case 'mount':
      await mountVolume(volume)
      return describeStatus(await volumeStatus(volume))
    case 'unmount':
      return (await unmountVolume(volume))
        ? `${job}'s volume is unmounted; ${folder} has its files, and until it is mounted again they are watched, not capped`
        : `${job}'s volume is not mounted`
    case 'remove':
      return [
        (await removeVolume(volume, keepsFolder))
          ? `${job}'s volume is removed; ${folder} keeps its files`
          : `${job} has no volume`,
        ...removalOf(mountUnit(image, folder)),
      ].join('\n')
  }
}

function chooseCommand([word = '', ...names]: string[]): [Command, JobName] {
  const command = commands.find(it => it === word)
  if (!command) {
    const fault = word ? `Unknown command "${word}"` : 'No command'
    throw new TrainerError(
      'usage',
      `${fault}; the commands are ${commands.join(', ')}${didYouMean(word, commands)}`,
    )
  }
  return [command, chooseOneJob(names, nameCommand(program.name, command, 'core'))]
}

async function findUser(name: string, run: RunProgram): Promise<Owner> {
  try {
    const [uid, gid] = [await run(['id', '-u', '--', name]), await run(['id', '-g', '--', name])]
    return { uid: Number(uid), gid: Number(gid) }
  } catch (cause) {
    throw new TrainerError('usage', `--owner is "${name}", expected a user of this machine`, { cause })
  }
}

function describeStatus(status: VolumeStatus): string {
  const { job, folder, image, state, imageBytes, reservedBytes, quotaBytes } = status
  if (state === 'none') return `${job} has no volume; create makes one of ${formatBytes(quotaBytes)} at most`
  const where = state === 'mounted' ? `mounted on ${folder}, ${used(status)}` : `not mounted on ${folder}`
  const missingBytes = imageBytes - reservedBytes
  const reserved = missingBytes
    ? `${formatBytes(missingBytes)} of it NOT reserved (it was trimmed); mount reserves it again`
    : 'all of it reserved'
  const fit = imageBytes > quotaBytes ? ', LARGER than the quota: remove it and create it anew' : ''
  return `${job}'s volume is ${where}
its image is ${image}, ${formatBytes(imageBytes)} of a quota of ${formatBytes(quotaBytes)}, ${reserved}${fit}`
}

function describeUnit({ job, image, folder }: Volume, { state }: VolumeStatus): string {
  if (state !== 'none') return fileOf(mountUnit(image, folder))
  throw new TrainerError(
    'storage',
    `There is no unit for ${job}: it has no volume; make one by ${nameCommand(program.name, 'create', job)}`,
  )
}

function used({ usedBytes = 0, usableBytes = 0 }: VolumeStatus): string {
  return `${formatBytes(usedBytes)} of ${formatBytes(usableBytes)} used`
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    print(await manageVolume(process.argv.slice(2), print))
    return 0
  })
}
