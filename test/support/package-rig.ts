import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainerEvent } from '../../lib/events.ts'
import { type JobName, jobNames } from '../../lib/quotas.ts'
import type { BootedMachine } from './booted-machine.ts'
import { onnxModel } from './onnx-fixture.ts'
import { programOf } from './places.ts'
import { type Sandbox, sandbox, until } from './sandbox.ts'
import { must } from './volume-rig.ts'

export const service = 'ransomeye-trainer.service'
export const models = '/var/lib/ransomeye/models'
const settings = '/etc/ransomeye-trainer'

let built: Promise<Sandbox & { deb: string }> | undefined

/** A folder with the package of this project: built once for a test file, as the project stands. */
export function builtPackage(): Promise<Sandbox & { deb: string }> {
  built ??= buildPackage()
  return built
}

/** A folder with one more build of it. */
export async function buildPackage(): Promise<Sandbox & { deb: string }> {
  const box = await sandbox()
  process.on('exit', () => void box[Symbol.asyncDispose]())
  const said = must(process.execPath, ...programOf('debian/deb.ts'), '--out', box.path('dist'))
  const deb = said.split('\n').find(line => line.endsWith('.deb'))
  if (!deb) throw new Error(`no package: ${said}`)
  return { ...box, deb }
}

/** The same package as another version. */
export function asVersion(box: Sandbox, deb: string, version: string): string {
  const folder = box.path(version)
  must('dpkg-deb', '--raw-extract', deb, folder)
  const replace = (name: string, from: RegExp, to: string) => {
    const file = join(folder, name)
    writeFileSync(file, readFileSync(file, 'utf8').replace(from, to))
  }
  replace('DEBIAN/control', /^Version: .*$/m, `Version: ${version}`)
  replace('usr/lib/ransomeye-trainer/package.json', /"version": "[^"]*"/, `"version": "${version}"`)
  // Its sums are no longer right, and nobody asks for them.
  const changed = box.path(`${version}.deb`)
  must('dpkg-deb', '--build', '--root-owner-group', folder, changed)
  return changed
}

/** Install a package on a machine, as an administrator does who has it in a folder; gives all that is said. */
export function installPackage(machine: BootedMachine, deb: string, ...options: string[]): string {
  copyFileSync(deb, machine.path('root/new.deb'))
  return machine.must('sh', '-c', `apt-get install --yes ${options.join(' ')} /root/new.deb 2>&1`)
}

/** Have the machine never wait for others who share its processors. */
export function neverWait(machine: BootedMachine): void {
  const file = machine.path(settings, 'quotas.json')
  const quotas = JSON.parse(readFileSync(file, 'utf8'))
  writeFileSync(file, JSON.stringify({ ...quotas, maxLoadPerCore: 1000 }, null, 2))
}

/** Give every job a training of its own: the body of a module with `fs`, `job`, `dir` and `sleep` in scope. */
export function setTraining(machine: BootedMachine, body: string, top: Record<string, unknown> = {}): void {
  mkdirSync(machine.path(settings), { recursive: true })
  for (const producer of ['one', 'two'])
    writeFileSync(machine.path(settings, `${producer}.onnx`), onnxModel({ producer }))
  const imports = `import fs from 'node:fs'
import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
const { RANSOMEYE_JOB: job, RANSOMEYE_OUTPUT_DIR: dir } = process.env
`
  writeFileSync(machine.path(settings, 'train.mjs'), imports + body)
  const job = { maxDiskMb: 40, minFreeMb: 1, train: ['node', `${settings}/train.mjs`] }
  const jobs = { core: job, dpi: job, agent: job }
  writeFileSync(machine.path(settings, 'quotas.json'), JSON.stringify({ maxLoadPerCore: 1000, jobs, ...top }))
}

/** Writes a model, one of two. */
export const publishes = `fs.copyFileSync('one.onnx', dir + '/' + job + '.onnx')\n`

/** Says so, and goes on until it is ended. */
export const goesOn = `console.log('ready')\nfor (;;) await sleep(100)\n`

/** The journal of the machine's runs. */
export function eventsOf(machine: BootedMachine): TrainerEvent[] {
  const file = machine.path(models, '.trainer/events.jsonl')
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : []
  return lines.filter(Boolean).flatMap(line => {
    try {
      return [JSON.parse(line) as TrainerEvent]
    } catch {
      return [] // cut off with the power
    }
  })
}

/** Return what a training has printed. */
export function outputOf(machine: BootedMachine, job: JobName): string {
  const file = machine.path(models, '.trainer', `${job}.log`)
  return existsSync(file) ? readFileSync(file, 'utf8') : ''
}

/** Ask systemd about a unit. */
export function unitOf(machine: BootedMachine, ...properties: string[]): Record<string, string> {
  return showUnit(machine, service, ...properties)
}

/** Ask systemd about any unit. */
export function showUnit(
  machine: BootedMachine,
  unit: string,
  ...properties: string[]
): Record<string, string> {
  const lines = machine.must('systemctl', 'show', '--property', properties.join(), unit).trim().split('\n')
  return Object.fromEntries(
    lines.map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  )
}

/** The lowest priority gets little beside others. */
const PATIENCE_MS = 600_000

/** Wait until the service has nothing more to do. */
export async function untilDone(machine: BootedMachine, unit = service): Promise<void> {
  await until(
    `${unit} has ended`,
    () => {
      const { stdout } = machine.run('systemctl', 'show', '--property=ActiveState,Job', unit)
      return /^ActiveState=inactive$/m.test(stdout) && !/^Job=[1-9]/m.test(stdout)
    },
    PATIENCE_MS,
  )
}

/** Wait until the training of a job says that it is ready. */
export async function untilReady(machine: BootedMachine, job: JobName = 'core'): Promise<void> {
  await until(`${job} is trained`, () => outputOf(machine, job).includes('ready'), PATIENCE_MS)
}

/** The processes of the service. */
export function processesOf(machine: BootedMachine, unit = service): string[] {
  const { stdout } = machine.run('cat', `/sys/fs/cgroup/system.slice/${unit}/cgroup.procs`)
  return stdout.split('\n').filter(Boolean)
}

/** The names of the jobs whose model is there, each by whatever a reader of models would follow. */
export function publishedOn(machine: BootedMachine): JobName[] {
  return jobNames.filter(job => existsSync(machine.path(models, job, `${job}.onnx`)))
}
