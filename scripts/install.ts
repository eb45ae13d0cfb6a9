/** Install the systemd units: node --import tsx scripts/install.ts [--every TIME] [--print | --uninstall] */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { TrainerError } from '../lib/errors.ts'
import { chooseModelsDir, SYSTEM_MODELS_DIR } from '../lib/folders.ts'
import { ensureFolder, ensureUser, userCanRun } from '../lib/installation/service-user.ts'
import { isHidden, renderUnits, SERVICE_USER, UNIT_FOLDER } from '../lib/installation/units.ts'
import { dropIns, installUnits, type Machine, systemdVersion, uninstallUnits } from '../lib/installation.ts'
import { type Program, readOptions, root } from '../lib/options.ts'
import { readQuotas } from '../lib/quotas.ts'
import { placeOptions } from '../lib/run/command.ts'
import { isEntry, print, runScript } from '../lib/script.ts'
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
  if (values.uninstall) return uninstall(chooseMachine(values.root))

  const quotasFile = values.quotas && resolve(values.quotas)
  const quotas = readQuotas(quotasFile ?? join(root, 'quotas.json'))
  const modelsDir = chooseModelsDir(values['models-dir'], quotas.modelsDir ?? SYSTEM_MODELS_DIR)
  // Given without an option, it surprises who has forgotten the variable.
  const variable = values['models-dir'] || !process.env.RANSOMEYE_MODELS_DIR ? '' : ' of RANSOMEYE_MODELS_DIR'
  assertSeen(modelsDir, variable)
  if (quotasFile) assertSeen(quotasFile)
  const trainer = [process.execPath, '--import', import.meta.resolve('tsx'), join(root, 'tasks.ts')]
  const command = [...trainer, '--max-wait', '10m', ...(quotasFile ? ['--quotas', quotasFile] : [])]
  const version = await systemdVersion()
  const units = renderUnits({ command, modelsDir, systemdVersion: version ?? 0 }, values.every)
  if (values.print) {
    const shown = units.map(({ name, text }) => `# ${UNIT_FOLDER}/${name}\n${text}`)
    return [...shown, ...(isHidden(root) ? [`# ${cannotRun}`] : [])].join('\n')
  }

  const machine = chooseMachine(values.root)
  const changes = await ensureUser(machine)
  if (machine.image === undefined) changes.push(...(await ensureFolder(modelsDir)))
  if (version === undefined) return [...changes, bootLine(command, modelsDir)].join('\n')
  changes.push(...(await installUnits(machine, units)))
  if (!changes.length) changes.push('nothing to do: all of it is installed')
  if (machine.image === undefined) changes.push(await adviceOn(trainer))
  return changes.join('\n')
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

/** @throws {TrainerError} `usage` if that machine is not there, or not ours to change */
function chooseMachine(image: string | undefined): Machine {
  if (image !== undefined) {
    if (existsSync(image)) return { image: resolve(image) }
    throw new TrainerError('usage', `--root is "${image}", expected the folder of an image`)
  }
  if (process.geteuid?.() === 0) return {}
  throw new TrainerError(
    'usage',
    'Cannot change this machine: not root; use sudo, or --print to see the units',
  )
}

async function adviceOn(trainer: string[]): Promise<string> {
  return isHidden(root) || !(await userCanRun([...trainer, '--version']))
    ? cannotRun
    : 'It runs at the next boot, or now: systemctl start --no-block ransomeye-trainer'
}

function bootLine(command: string[], modelsDir: string): string {
  const line = ['env', '-i', `RANSOMEYE_MODELS_DIR=${modelsDir}`, ...command].map(quoteWord).join(' ')
  return `There is no systemd here. For another boot script, as root:\n  runuser -u ${SERVICE_USER} -- ${line}`
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    print((await install(process.argv.slice(2))).trimEnd())
    return 0
  })
}
