import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { TrainerError } from '../errors.ts'
import { SERVICE_USER, SYSTEM_MODELS_DIR } from '../settings/folders.ts'
import { parseDuration } from '../settings/options.ts'

/** The first line of every unit that is made here; a file without it is somebody else's. */
export const MARK = '# Made by ransomeye-trainer.'

/** The folder of the administrator's units. */
export const UNIT_FOLDER = '/etc/systemd/system'

/** Where Debian's packages have their units. */
const PACKAGE_UNIT_FOLDERS = ['/usr/lib/systemd/system', '/lib/systemd/system']

/** The names of our units; enabled ones stand before those that they start. */
export const unitNames = ['ransomeye-trainer.service', 'ransomeye-retrain.timer', 'ransomeye-retrain.service']

/** Those of them that train. */
export const serviceNames = unitNames.filter(name => name.endsWith('.service'))

/** A systemd unit: its file's name and content. */
export type Unit = { name: string; text: string }

/**
 * Find the file of a unit that a package has brought.
 *
 * @param image the root folder of the machine
 */
export function packagedUnit({ name }: Pick<Unit, 'name'>, image = '/'): string | undefined {
  return PACKAGE_UNIT_FOLDERS.map(folder => join(image, folder, name)).find(path => existsSync(path))
}

/** The values in the units: paths on the machine that they are for, absolute, and its systemd. */
export type UnitValues = {
  /** The training command, program first. */
  command: string[]
  modelsDir: string
  /** The version that `systemctl --version` prints; 0 if it is unknown. */
  systemdVersion: number
}

/**
 * Write the units of a machine: the service that trains missing models at boot and, with an interval such as `7d`, a
 * timer and a service that retrain.
 *
 * @throws {TrainerError} `usage` if the interval is none that a calendar can repeat, or a path cannot stand in a unit
 */
export function renderUnits(values: UnitValues, every?: string): Unit[] {
  const { command } = values
  const unprintable = [values.modelsDir, ...command].find(text => /\p{Cc}/u.test(text))
  if (unprintable !== undefined) {
    const reason = `${JSON.stringify(unprintable)} has control characters; move it`
    throw new TrainerError('usage', `Cannot write a unit: ${reason}`)
  }
  const boot = service('ransomeye-trainer', {
    ...values,
    description: "Train those of RansomEye's models that are missing",
    // Start last: hours of training must not hold up the boot.
    after: 'multi-user.target',
    install: '\n[Install]\nWantedBy=multi-user.target\n',
  })
  if (every === undefined) return [boot]
  const retrain = service('ransomeye-retrain', {
    ...values,
    command: [...command, '--retrain'],
    description: "Retrain RansomEye's models",
    after: 'ransomeye-trainer.service',
    install: '',
  })
  return [boot, retrain, timer(every)]
}

/** Is a path hidden from the services? */
export function isHidden(path: string): boolean {
  return /^\/(var\/)?tmp(\/|$)/.test(path)
}

function headOf(name: string): string {
  return `${MARK} Changes belong in a drop-in: systemctl edit ${name}`
}

type Service = UnitValues & { description: string; after: string; install: string }

function service(name: string, { command, modelsDir, systemdVersion, ...unit }: Service): Unit {
  const [program, ...args] = command
  const text = `${headOf(name)}
[Unit]
Description=${unit.description}
After=${unit.after}
StartLimitIntervalSec=0

[Service]
Type=oneshot
User=${SERVICE_USER}
Group=${SERVICE_USER}
Environment=${[...(args.includes('--import') ? ['TSX_DISABLE_CACHE=1'] : []), quote(`RANSOMEYE_MODELS_DIR=${modelsDir}`)].join(' ')}
ExecStart=${[quote(program!), ...args.map(argument => quote(argument).replaceAll('$', '$$$$'))].join(' ')}
SyslogIdentifier=${name}

# A failed training, a full disk or a held lock may pass, on whatever day, so no limit on starts ends this; a broken
# quota, wrong usage or wrong quotas.json do not.
Restart=on-failure
RestartPreventExitStatus=2 4 64 78
SuccessExitStatus=130 143
${backOff(systemdVersion)}

# The main process ends a training within its graceSeconds, 300 at most; whatever is left of the unit after that is killed.
KillMode=mixed
TimeoutStopSec=330s

# All of it after the rest of the machine; a training that is killed for want of memory is a failed training.
OOMPolicy=continue
OOMScoreAdjust=500
Nice=19
IOSchedulingClass=idle
CPUWeight=20
IOWeight=20

# On disk nothing but the models can be written, so no byte escapes the quotas: in the sandbox /tmp is a folder there,
# outside it there is none. (A drop-in with InaccessiblePaths= gives the service a private one.)
${writable(modelsDir)}
UMask=0027
ProtectSystem=strict
${homes([modelsDir, ...command])}
PrivateTmp=yes
InaccessiblePaths=/tmp /var/tmp
PrivateMounts=yes

# For a GPU: a drop-in with PrivateDevices=no and, for NVIDIA, DeviceAllow=char-nvidia* rw
PrivateDevices=yes
DevicePolicy=closed

# The sandbox needs these namespaces and @mount. Left out, because it would stop working: ProtectKernelTunables=,
# ProtectKernelLogs=, ProtectHostname= and ProcSubset= cover parts of /proc, and then the kernel refuses it a /proc of
# its own; RestrictSUIDSGID= forbids openat2; MemoryDenyWriteExecute= would stop V8's compiler.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictNamespaces=user mnt pid ipc
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount
SystemCallFilter=~@resources
SystemCallErrorNumber=EPERM
PrivateUsers=yes
PrivateIPC=yes
RemoveIPC=yes

# No training of ours needs the network. For one that does: a drop-in with PrivateNetwork=no, IPAddressDeny= (empty),
# RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK and, for those that have "network": "none" all the same,
# RestrictNamespaces=net. The others then also see the abstract sockets of the machine's services.
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=AF_UNIX
ProtectProc=invisible
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectClock=yes
LockPersonality=yes
RestrictRealtime=yes
KeyringMode=private
${unit.install}`
  return { name: `${name}.service`, text }
}

/**
 * Delay restarts, by growing delays where systemd knows them. An older one gets a fixed delay, which also suits a
 * training that always fails after hours.
 */
function backOff(systemdVersion: number): string {
  return systemdVersion >= 254 ? 'RestartSec=1min\nRestartSteps=6\nRestartMaxDelaySec=6h' : 'RestartSec=30min'
}

/** Open the models folder alone, of all the product's state, to writing. A folder elsewhere must exist. */
function writable(modelsDir: string): string {
  const open = `ReadWritePaths=-${quote(modelsDir)}`
  if (modelsDir !== SYSTEM_MODELS_DIR) return open
  return `StateDirectory=ransomeye ransomeye/models
StateDirectoryMode=0750
ReadOnlyPaths=/var/lib/ransomeye
${open}`
}

/** Hide the homes, but for what of them holds something that the service needs. */
function homes(paths: string[]): string {
  const needed = paths.flatMap(path => /^(\/home\/[^/]+|\/root|\/run\/user\/[^/]+)\//.exec(path)?.[1] ?? [])
  if (!needed.length) return 'ProtectHome=yes'
  return ['ProtectHome=tmpfs', ...[...new Set(needed)].map(home => `BindReadOnlyPaths=${quote(home)}`)].join(
    '\n',
  )
}

function timer(every: string): Unit {
  const { calendar, spread } = repetition(every)
  const name = 'ransomeye-retrain.timer'
  const text = `${headOf(name)}
[Unit]
Description=Retrain RansomEye's models regularly

[Timer]
OnCalendar=${calendar}
# Not all machines of a fleet at once; what was missed while the machine was off is made up for.
RandomizedDelaySec=${spread}
Persistent=yes

[Install]
WantedBy=timers.target
`
  return { name, text }
}

/** Quote one word of a setting: see "Quoting" in systemd.syntax(7) and "Specifiers" in systemd.unit(5). */
function quote(text: string): string {
  const escaped = text.replace(/[\\"]/g, '\\$&').replaceAll('%', '%%')
  return /^[\w/.:@%$+=,~-]+$/.test(text) ? escaped : `"${escaped}"`
}

const HOUR_MS = 3_600_000
const calendars: Record<number, string> = { 24: 'daily', 168: 'weekly', 336: '*-*-01,15', 720: 'monthly' }

/** The calendar of a timer and its greatest random delay, in the words of systemd.time(7). */
type Repetition = { calendar: string; spread: string }

/**
 * Turn an interval into a calendar. A timer that makes up for missed times needs one, and few intervals repeat evenly.
 *
 * @throws {TrainerError} `usage` if no calendar can repeat the interval
 * @example repetition('7d') // { calendar: 'weekly', spread: '360min' }
 */
function repetition(every: string): Repetition {
  const hours = parseDuration('--every', every) / HOUR_MS
  const calendar =
    calendars[hours] ?? (24 % hours === 0 && Number.isInteger(hours) ? `*-*-* 00/${hours}:00:00` : undefined)
  if (calendar) return { calendar, spread: `${Math.min(hours * 6, 360)}min` }
  const expected = '1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d, 7d, 14d or 30d'
  throw new TrainerError('usage', `--every is "${every}", expected ${expected}: what a calendar can repeat`)
}
