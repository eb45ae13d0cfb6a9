import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { quoteWord } from '../../text.ts'
import { UNIT_FOLDER, type Unit } from '../units.ts'

/** Write the unit that mounts a volume at boot, before any training. */
export function mountUnit(image: string, folder: string): Unit {
  const name = `${escapePath(folder)}.mount`
  const text = `# ${UNIT_FOLDER}/${name}
[Unit]
Description=Volume of ransomeye-trainer on ${specifierFree(folder)}
Before=ransomeye-trainer.service

[Mount]
What=${specifierFree(image)}
Where=${specifierFree(folder)}
Type=ext4
Options=loop,nodev,nosuid

[Install]
WantedBy=multi-user.target
RequiredBy=ransomeye-trainer.service
`
  return { name, text }
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
  const isEnabled = existsSync(join(UNIT_FOLDER, 'ransomeye-trainer.service.requires', name))
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
