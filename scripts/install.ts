/** Install the systemd units: node --import tsx scripts/install.ts [--every TIME] [--print | --uninstall] */
import { existsSync, realpathSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { TrainerError } from '../lib/errors.ts'
import {
  dropIns,
  installUnits,
  isBooted,
  type Machine,
  pathOn,
  systemdVersion,
  uninstallUnits,
} from '../lib/machine/install-units.ts'
import { ensureFolder, ensureUser, userCanRun } from '../lib/machine/service-user.ts'
import { isHidden, renderUnits, UNIT_FOLDER } from '../lib/machine/units.ts'
import { chooseModelsDir, SERVICE_USER, SYSTEM_MODELS_DIR } from '../lib/settings/folders.ts'
import { type Program, readOptions } from '../lib/settings/options.ts'
import { chooseQuotasFile, placeOptions } from '../lib/settings/place.ts'
import { readQuotas } from '../lib/settings/quotas-file.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'
import { root } from '../lib/system/start-command.ts'
import { quoteWord } from '../lib/text.ts'

const options = {
  ...placeOptions,
  every: {
    type: 'string',
    value: 'TIME',
    help: 'also retrain, such as every 1d or 7d (default: never)',
  },
  print: { type: 'boolean', help: 'show the units; change nothing' },
  uninstall: { type: 'boolean', help: 'stop and remove it; keep models, state and drop-ins' },
  root: { type: 'string', value: 'DIR', help: 'into the image of a machine instead of this machine' },
} as const

const program: Program<typeof options> = {
  name: 'scripts/install.ts',
  summary: 'Install the systemd service that trains missing models at boot.',
  options,
  example: '--every 7d',
  notes: `It runs as the user ${SERVICE_USER}, who is made if missing. Installing again
brings the machine to the options given then. Without systemd it shows the line
for another boot script.

Exit codes: 0 done, 3 this machine refuses, 64 wrong usage or not root,
78 quotas.json invalid`,
}

const cannotRun = `WARNING: the service cannot run what is in ${root}; move it, such as to /opt, and install it from there`

/**
 * Install, show or remove the units.
 *
 * @returns what to tell the operator
 * @throws {TrainerError} `usage`, `config`; `storage` if the system refuses
 */
export async function install(args: string[]): Promise<string> {
  const read = readOptions(args, program)
  if (typeof read === 'string') return read
  const { values } = read
  if (values.print && values.uninstall) throw new TrainerError('usage', 'Choose --print or --uninstall')
  const machine = chooseMachine(values.root)
  if (!values.print) assertOurs(machine)
  if (values.uninstall) return uninstall(machine)

  const quotas = readQuotas(chooseQuotasFile(values))
  const folder = chooseModelsDir(values['models-dir'], quotas.modelsDir ?? SYSTEM_MODELS_DIR)
  const modelsDir = pathOn(machine, folder)
  // Given without an option, it surprises who has forgotten the variable.
  const variable = values['models-dir'] || !process.env.RANSOMEYE_MODELS_DIR ? '' : ' of RANSOMEYE_MODELS_DIR'
  assertSeen(modelsDir, variable)
  const quotasPath = values.quotas && pathOn(machine, resolve(values.quotas))
  if (quotasPath) assertSeen(quotasPath)
  const trainer = trainerOn(machine)
  const command = [...trainer, '--max-wait', '10m', ...(quotasPath ? ['--quotas', quotasPath] : [])]
  const version = await systemdVersion()
  const units = renderUnits({ command, modelsDir, systemdVersion: version ?? 0 }, values.every)
  const warning = warningOn(machine)
  if (values.print) {
    const shown = units.map(({ name, text }) => `# ${UNIT_FOLDER}/${name}\n${text}`)
    return [...shown, ...(warning ? [`# ${warning}`] : [])].join('\n')
  }

  const changes = await ensureUser(machine)
  if (machine.image === undefined) changes.push(...(await ensureFolder(modelsDir)))
  if (version === undefined) return [...changes, bootLine(command, modelsDir)].join('\n')
  changes.push(...(await installUnits(machine, units)))
  if (!changes.length) changes.push('nothing to do: all of it is installed')
  if (warning) changes.push(warning)
  else if (machine.image === undefined) changes.push(await adviceOn(trainer, bootLine(command, modelsDir)))
  return changes.join('\n')
}

/** The training command, as that machine has it. */
function trainerOn(machine: Machine): string[] {
  const loader = pathToFileURL(pathOn(machine, fileURLToPath(import.meta.resolve('tsx')))).href
  return [pathOn(machine, process.execPath), '--import', loader, pathOn(machine, join(root, 'tasks.ts'))]
}

/** Why the service could not run on that machine, if that can be seen. */
function warningOn(machine: Machine): string | undefined {
  if (isHidden(pathOn(machine, root))) return cannotRun
  const missing = [root, process.execPath]
    .map(path => pathOn(machine, path))
    .filter(path => !existsSync(join(machine.image ?? '/', path)))
  if (!missing.length) return undefined
  const remedy = 'put this project and Node.js there'
  return `WARNING: the units name ${missing.join(' and ')}, which the image does not have; ${remedy}`
}

function assertSeen(path: string, source = ''): void {
  if (!isHidden(path)) return
  throw new TrainerError(
    'usage',
    `Cannot use ${path}${source}: the service sees no /tmp and no /var/tmp; move it`,
  )
}

async function uninstall(machine: Machine): Promise<string> {
  const changes = await uninstallUnits(machine)
  if (!changes.length) return 'nothing to do: none of it is installed'
  const kept = ['kept models, state', `the user ${SERVICE_USER}`, ...dropIns(machine)].join(', ')
  return [...changes, kept].join('\n')
}

/** @throws {TrainerError} `usage` if that machine is not there */
function chooseMachine(image: string | undefined): Machine {
  if (image === undefined) return {}
  if (existsSync(image)) return { image: realpathSync(image) }
  throw new TrainerError('usage', `--root is "${image}", expected the folder of an image`)
}

/** @throws {TrainerError} `usage` if it is not ours to change */
function assertOurs({ image }: Machine): void {
  if (image !== undefined || process.geteuid?.() === 0) return
  throw new TrainerError(
    'usage',
    'Cannot change this machine: not root; use sudo, or --print to see the units',
  )
}

async function adviceOn(trainer: string[], bootLine: string): Promise<string> {
  if (!(await userCanRun([...trainer, '--version']))) return cannotRun
  return isBooted({})
    ? 'It runs at the next boot, or now: systemctl start --no-block ransomeye-trainer'
    : bootLine
}

function bootLine(command: string[], modelsDir: string): string {
  const line = ['env', '-i', `RANSOMEYE_MODELS_DIR=${modelsDir}`, ...command].map(quoteWord).join(' ')
  return `systemd does not run here. For another boot script, as root:\n  runuser -u ${SERVICE_USER} -- ${line}`
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    print((await install(process.argv.slice(2))).trimEnd())
    return 0
  })
}
