import { TrainerError } from '../errors.ts'
import { SYSTEM_MODELS_DIR } from '../settings/folders.ts'
import { parseDuration } from '../settings/options.ts'

/** The user that RansomEye's services run as. */
export const SERVICE_USER = 'ransomeye'

/** The first line of every unit from here; a file without it is somebody else's. */
export const MARK = '# Made by ransomeye-trainer. Changes belong into a drop-in: systemctl edit '

/** Where the units of a machine's administrator are. */
export const UNIT_FOLDER = '/etc/systemd/system'

/** Every unit that there can be; enabled ones before what they start. */
export const unitNames = ['ransomeye-trainer.service', 'ransomeye-retrain.timer', 'ransomeye-retrain.service']

/** A systemd unit: its file's name and content. */
export type Unit = { name: string; text: string }

/** Where things are on the machine that the units are for; all paths are absolute. */
export type UnitValues = {
  /** The training command, program first. */
  command: string[]
  modelsDir: string
  /** As `systemctl --version` gives it; 0 if that is not known. */
  systemdVersion: number
}

/**
 * The units of a machine: the service that trains what is missing at boot and, with an interval such as `7d`, a
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
    // Last, so that hours of training do not hold up the boot.
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

/** Is a path where the services see nothing? */
export function isHidden(path: string): boolean {
  return /^\/(var\/)?tmp(\/|$)/.test(path)
}

type Service = UnitValues & { description: string; after: string; install: string }

function service(name: string, { command, modelsDir, systemdVersion, ...unit }: Service): Unit {
  const [program, ...args] = command
  const text = `${MARK}${name}
[Unit]
Description=${unit.description}
After=${unit.after}
StartLimitIntervalSec=0

[Service]
Type=oneshot
User=${SERVICE_USER}
Group=${SERVICE_USER}
Environment=TSX_DISABLE_CACHE=1 ${quote(`RANSOMEYE_MODELS_DIR=${modelsDir}`)}
ExecStart=${[quote(program!), ...args.map(argument => quote(argument).replaceAll('$', '$$$$'))].join(' ')}
SyslogIdentifier=${name}

# A failed training, a full disk or a held lock may pass, on whatever day, so no limit on starts ends this; a broken
# quota, wrong usage or wrong quotas.json do not.
Restart=on-failure
RestartPreventExitStatus=2 64 78
SuccessExitStatus=130 143
${backOff(systemdVersion)}

# The main process ends a training within 10 s; whatever is left of the unit after that is killed.
KillMode=mixed
TimeoutStopSec=30s

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
ProtectHome=tmpfs
${homesOf([modelsDir, ...command])}PrivateTmp=yes
InaccessiblePaths=/tmp /var/tmp
PrivateMounts=yes

# For a GPU: a drop-in with PrivateDevices=no and, for NVIDIA, DeviceAllow=char-nvidia* rw
PrivateDevices=yes
DevicePolicy=closed

# The sandbox needs the three namespaces and @mount. Left out, because it would stop working: ProtectKernelTunables=,
# ProtectKernelLogs=, ProtectHostname= and ProcSubset= cover parts of /proc, and then the kernel refuses it a /proc of
# its own; RestrictSUIDSGID= forbids openat2. MemoryDenyWriteExecute= would stop V8's compiler, and RemoveIPC= take
# away the shared memory of this user's other services.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictNamespaces=user mnt pid
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount
SystemCallFilter=~@resources
SystemCallErrorNumber=EPERM
PrivateUsers=yes
PrivateIPC=yes
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

/** Growing delays where systemd knows them; before that a fixed one, for a training that always fails after hours too. */
function backOff(systemdVersion: number): string {
  return systemdVersion >= 254 ? 'RestartSec=1min\nRestartSteps=6\nRestartMaxDelaySec=6h' : 'RestartSec=30min'
}

/** Of the product's state the models alone; a folder elsewhere has to be there. */
function writable(modelsDir: string): string {
  const open = `ReadWritePaths=-${quote(modelsDir)}`
  if (modelsDir !== SYSTEM_MODELS_DIR) return open
  return `StateDirectory=ransomeye ransomeye/models
StateDirectoryMode=0750
ReadOnlyPaths=/var/lib/ransomeye
${open}`
}

/** Of the homes, which are hidden, those that hold something that the service needs. */
function homesOf(paths: string[]): string {
  const homes = paths.flatMap(path => /^(\/home\/[^/]+|\/root|\/run\/user\/[^/]+)\//.exec(path)?.[1] ?? [])
  return [...new Set(homes)].map(home => `BindReadOnlyPaths=${quote(home)}\n`).join('')
}

function timer(every: string): Unit {
  const { calendar, spread } = repetition(every)
  const name = 'ransomeye-retrain.timer'
  const text = `${MARK}${name}
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

/** One word of a setting: see "Quoting" in systemd.syntax(7) and "Specifiers" in systemd.unit(5). */
function quote(text: string): string {
  const escaped = text.replace(/[\\"]/g, '\\$&').replaceAll('%', '%%')
  return /^[\w/.:@%$+=,~-]+$/.test(text) ? escaped : `"${escaped}"`
}

const HOUR_MS = 3_600_000
const calendars: Record<number, string> = { 24: 'daily', 168: 'weekly', 336: '*-*-01,15', 720: 'monthly' }

/** When a timer elapses, and by how much it is put off at random, in the words of systemd.time(7). */
type Repetition = { calendar: string; spread: string }

/**
 * An interval as a calendar has it: a timer that makes up for what was missed needs one, and few repeat evenly.
 *
 * @throws {TrainerError} `usage` if it is none of those
 * @example repetition('7d') // { calendar: 'weekly', spread: '360min' }
 */
function repetition(every: string): Repetition {
  const hours = parseDuration('--every', every) / HOUR_MS
  const calendar =
    calendars[hours] ?? (24 % hours === 0 && hours >= 1 ? `*-*-* 00/${hours}:00:00` : undefined)
  if (calendar) return { calendar, spread: `${Math.min(hours * 6, 360)}min` }
  const expected = '1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d, 7d, 14d or 30d'
  throw new TrainerError('usage', `--every is "${every}", expected ${expected}: what a calendar can repeat`)
}
