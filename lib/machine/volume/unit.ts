import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { quoteWord } from '../../text.ts'
import { packagedUnit, serviceNames, UNIT_FOLDER, type Unit } from '../units.ts'

/** Write the unit that mounts a volume at boot, before any training. */
export function mountUnit(image: string, folder: string): Unit {
  const name = `${escapePath(folder)}.mount`
  const services = serviceNames.join(' ')
  const text = `[Unit]
Description=Volume of ransomeye-trainer on ${specifierFree(folder)}
Before=${services}

[Mount]
What=${specifierFree(image)}
Where=${specifierFree(folder)}
Type=ext4
Options=loop,nodev,nosuid

[Install]
WantedBy=multi-user.target
RequiredBy=${services}
`
  return { name, text }
}

/** Say how a volume is mounted at boot: by the package's unit, or by this text in a file. */
export function describeMounting(unit: Unit): string {
  return packagedUnit(unit) ? `to mount it at boot: systemctl enable ${quoteWord(unit.name)}` : fileOf(unit)
}

/** Write a unit with the name of its file above it. */
export function fileOf({ name, text }: Unit): string {
  return `# ${UNIT_FOLDER}/${name}\n${text.trimEnd()}`
}

/**
 * Say how to be rid of the unit of a volume that is gone, as a line; none if it is not there, or is the package's and not
 * enabled.
 */
export function removalOf({ name }: Unit): string[] {
  const file = join(UNIT_FOLDER, name)
  const disable = `systemctl disable ${quoteWord(name)}`
  const why = 'the service cannot start while the unit of that volume is enabled'
  if (existsSync(file)) return [`${why}; remove it: ${disable}; rm ${quoteWord(file)}`]
  const isEnabled = serviceNames.some(service => existsSync(join(UNIT_FOLDER, `${service}.requires`, name)))
  return isEnabled ? [`${why}; disable it: ${disable}`] : []
}

/** Escape a path as systemd-escape(1) does with `--path`. */
function escapePath(path: string): string {
  const names = path.split('/').filter(Boolean).join('/')
  const bytes = Array.from(Buffer.from(names), (byte, index) => {
    const character = String.fromCharCode(byte)
    if (character === '/') return '-'
    const isPlain = /[a-zA-Z0-9:_.]/.test(character) && !(index === 0 && character === '.')
    return isPlain ? character : `\\x${byte.toString(16).padStart(2, '0')}`
  })
  return bytes.join('') || '-'
}

function specifierFree(path: string): string {
  return path.replaceAll('%', '%%')
}
