import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { isErrno, messageOf, TrainerError } from '../errors.ts'
import { replaceFile, storageError } from '../system/durable.ts'
import { programRunner } from '../system/programs.ts'
import { MARK, packagedUnit, UNIT_FOLDER, type Unit, unitNames } from './units.ts'

const run = programRunner()

/** The machine to install on: this one, or the image of one in a folder (its real path). */
export type Machine = { image?: string }

/**
 * Bring a machine to exactly these units, enabled. Starts nothing but the timer. Never touches drop-ins, or units that
 * were not made here.
 *
 * @returns a line for each change; none if everything was in place
 * @throws {TrainerError} `storage` if a unit of that name is somebody else's, or the system refuses
 */
export async function installUnits(machine: Machine, units: Unit[]): Promise<string[]> {
  const present = readOwnUnits(machine)
  for (const { name } of units) if (!present.has(name)) assertFree(machine, name)
  const changed = units.filter(({ name, text }) => present.get(name) !== text)
  const stale = [...present.keys()].filter(name => units.every(unit => unit.name !== name))
  const changes = await removeUnits(machine, stale)
  for (const { name, text } of changed) {
    const path = unitPath(machine, name)
    changes.push(...takenOver(machine, name, present.get(name), text))
    makeFolderOf(path)
    await replaceFile(path, text)
    changes.push(`wrote ${path}`)
  }
  if (changes.length) await reload(machine)
  for (const { name, text } of units) {
    if (!text.includes('[Install]') || (await isEnabled(machine, name))) continue
    await systemctl(machine, 'enable', name)
    changes.push(`enabled ${name}`)
  }
  const timer = changed.find(({ name }) => name.endsWith('.timer'))
  if (timer && isBooted(machine)) await systemctl(machine, 'restart', timer.name)
  return changes
}

/**
 * Stop, disable and remove the units that were installed here, and nothing else.
 *
 * @returns a line for each change; none if there was nothing to remove
 * @throws {TrainerError} as {@link installUnits}
 */
export async function uninstallUnits(machine: Machine): Promise<string[]> {
  const changes = await removeUnits(machine, [...readOwnUnits(machine).keys()])
  if (changes.length) await reload(machine)
  return changes
}

/** List the folders with an operator's drop-ins for our units. */
export function dropIns(machine: Machine): string[] {
  return unitNames.map(name => `${unitPath(machine, name)}.d`).filter(path => existsSync(path))
}

/** Return the version of the systemd tools here; undefined without systemd. */
export async function systemdVersion(): Promise<number | undefined> {
  const shown = await run(['systemctl', '--version']).catch(() => undefined)
  return shown === undefined ? undefined : Number(/^systemd (\d+)/.exec(shown)?.[1] ?? 0)
}

/** Translate a path of ours into the machine's own: a path in its image is another one there. */
export function pathOn({ image = '/' }: Machine, path: string): string {
  const below = relative(image, path)
  return /^\.\.(\/|$)/.test(below) ? path : join('/', below)
}

function unitPath({ image = '/' }: Machine, name: string): string {
  return join(image, UNIT_FOLDER, name)
}

/** Does systemd run this machine? Only then is there something to reload, start and stop. */
export function isBooted({ image }: Machine): boolean {
  return image === undefined && existsSync('/run/systemd/system')
}

/** Read the units that were made here and are installed, by name. */
function readOwnUnits(machine: Machine): Map<string, string> {
  const own = new Map<string, string>()
  for (const name of unitNames) {
    const path = unitPath(machine, name)
    const text = readIfThere(path)
    if (text?.startsWith(MARK)) own.set(name, text)
  }
  return own
}

/** Tell whose place a unit takes: that of another installation of this program, or of its package. */
function takenOver(machine: Machine, name: string, before: string | undefined, after: string): string[] {
  const [old, now] = [before, after].map(text => /^ExecStart=(.*)$/m.exec(text ?? '')?.[1])
  const program = (command: string | undefined) => /\S*tasks\.ts\S*/.exec(command ?? '')?.[0]
  if (old !== undefined && program(old) !== program(now))
    return [`${name} started another installation, which it leaves: ${old}`]
  const hidden = before === undefined ? packagedUnit({ name }, machine.image) : undefined
  return hidden ? [`${name} now hides the package's: ${hidden}`] : []
}

/** Check that a unit's name is free. A masked unit takes it too: that is somebody's decision. */
function assertFree(machine: Machine, name: string): void {
  const path = unitPath(machine, name)
  const text = readIfThere(path)
  if (text === undefined) return
  const remedy = text ? 'move it away' : `systemctl unmask ${name}`
  throw new TrainerError('storage', `Cannot touch ${path}: it was not made here; ${remedy}`)
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw storageError(`Cannot read ${path}`, error)
  }
}

/** Make the folder of a unit: an image of a machine may lack it. */
function makeFolderOf(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true })
  } catch (cause) {
    throw storageError(`Cannot write ${path}`, cause)
  }
}

async function removeUnits(machine: Machine, names: string[]): Promise<string[]> {
  if (names.length) await systemctl(machine, 'disable', ...(isBooted(machine) ? ['--now'] : []), ...names)
  return names.map(name => {
    const path = unitPath(machine, name)
    rmSync(path)
    return `removed ${path}`
  })
}

async function reload(machine: Machine): Promise<void> {
  if (isBooted(machine)) await systemctl(machine, 'daemon-reload')
}

async function isEnabled(machine: Machine, name: string): Promise<boolean> {
  return systemctl(machine, 'is-enabled', name).then(
    () => true,
    () => false,
  )
}

async function systemctl({ image }: Machine, ...args: string[]): Promise<void> {
  try {
    await run(['systemctl', ...(image === undefined ? [] : [`--root=${image}`]), ...args])
  } catch (cause) {
    throw new TrainerError('storage', `Cannot run systemctl ${args.join(' ')}: ${messageOf(cause)}`, {
      cause,
    })
  }
}
