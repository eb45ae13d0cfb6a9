import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as assert from 'uvu/assert'
import type { TrainerEvent } from '../../lib/events.ts'
import { renderUnits } from '../../lib/machine/units.ts'
import { bootMachine, canBoot, installedRoot, type Machine } from '../support/machine.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { root } from '../support/places.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'

const service = 'ransomeye-trainer.service'
const models = '/var/lib/ransomeye/models'
/** A folder that is hidden unless it is needed, with a name that needs quoting. */
const odd = `/home/an operator/it's "100%" of $HOME %n`

const script = (name: string) => [
  process.execPath,
  '--import',
  import.meta.resolve('tsx').replace(pathToFileURL(root).href, pathToFileURL(installedRoot).href),
  join(installedRoot, 'scripts', name),
]

/** A machine boots in seconds: two serve all tests. On one the service is installed, on the other it comes and goes. */
let installed: Promise<Machine> | undefined
let bare: Promise<Machine> | undefined
const bareMachine = () => (bare ??= bootMachine())
test.after(async () => {
  for (const machine of [installed, bare]) await (await machine)?.[Symbol.asyncDispose]()
})

/** The machine on which the service is installed, with nothing trained, and this training for every job. */
async function machineWith(body: string, sandbox = 'auto'): Promise<Machine> {
  installed ??= bootMachine().then(machine => {
    installWith(machine, publishes)
    return machine
  })
  const machine = await installed
  machine.run('systemctl', 'stop', service)
  machine.run('systemctl', 'reset-failed', service)
  machine.run('find', models, '-mindepth', '1', '-delete')
  writeTraining(machine, body, 20, sandbox)
  return machine
}

/**
 * Install with a quotas file whose training, for every job, is `body`: a module with `job` and `dir` in scope.
 *
 * @returns what the installation has printed
 */
function installWith(machine: Machine, body: string, sandbox = 'auto'): string {
  for (const folder of [odd, '/home/somebody']) mkdirSync(machine.path(folder), { recursive: true })
  writeFileSync(machine.path(odd, 'model.onnx'), onnxModel())
  writeTraining(machine, body, 20, sandbox)
  const { status, stdout, stderr } = machine.run(
    ...script('install.ts'),
    '--quotas',
    join(odd, 'quotas.json'),
  )
  assert.is(status, 0, stderr)
  return stdout
}

function writeTraining(machine: Machine, body: string, maxDiskMb: number, sandbox = 'auto'): void {
  const imports = `import fs from 'node:fs'
import os from 'node:os'
import { execFileSync, spawn } from 'node:child_process'
const { RANSOMEYE_JOB: job, RANSOMEYE_OUTPUT_DIR: dir } = process.env
`
  writeFileSync(machine.path(odd, 'train.mjs'), imports + body)
  const job = { maxDiskMb, train: ['node', 'train.mjs'], sandbox }
  const jobs = {
    core: job,
    dpi: { ...job, ...(sandbox === 'auto' && { network: 'none' }) },
    agent: { ...job, sandbox: 'off' },
  }
  writeFileSync(machine.path(odd, 'quotas.json'), JSON.stringify({ maxLoadPerCore: 1000, jobs }))
}

const publishes = "fs.copyFileSync('model.onnx', dir + '/' + job + '.onnx')"

function events(machine: Machine): TrainerEvent[] {
  const path = machine.path(models, '.trainer', 'events.jsonl')
  const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []
  return lines.filter(Boolean).map(line => JSON.parse(line))
}

/** Return what a training has printed so far. */
function output(machine: Machine, job: string): string[] {
  const path = machine.path(models, '.trainer', `${job}.log`)
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : []
}

const shown = [
  'ActiveState',
  'SubState',
  'Result',
  'ExecMainStatus',
  'MainPID',
  'StartLimitIntervalUSec',
] as const

function stateOf(machine: Machine): Record<(typeof shown)[number], string> {
  const { stdout } = machine.run('systemctl', 'show', '-p', shown.join(), service)
  return Object.fromEntries(
    stdout
      .trim()
      .split('\n')
      .map(line => line.split('=')),
  )
}

/** Every process of the service. */
function processes(machine: Machine): string[] {
  const path = machine.path('sys/fs/cgroup/system.slice', service, 'cgroup.procs')
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').filter(Boolean) : []
}

const needs = 'needs root, systemd and an overlay filesystem'
const withMachine = skipUnless(inSweep, canBoot(), needs)

withMachine('the service trains in its sandbox, and can write nothing but its models', async () => {
  const machine = await machineWith(
    `function tryTo(name, act) {
  try { act(); console.log(name, 'works') } catch (error) { console.log(name, error.code ?? 'fails') }
}
tryTo('temporary', () => fs.writeFileSync('/tmp/big', 'x'))
tryTo('charged', () => fs.statSync(dir + '/tmp/big'))
tryTo('home', () => fs.readdirSync('/home/somebody'))
tryTo('other', () => fs.writeFileSync('/var/lib/ransomeye/other', 'x'))
tryTo('disk', () => fs.statSync('/dev/kmsg'))
tryTo('lock', () => fs.statSync(dir + '/../../.trainer/lock'))
tryTo('namespace', () => execFileSync('unshare', ['--user', 'true'], { stdio: 'ignore' }))
const first = '/proc/1' // hidden from the service without a sandbox, and empty in one
console.log('wrapped', fs.existsSync(first) && !fs.readdirSync(first).length)
console.log('nice', os.getPriority())
${publishes}`,
  )

  const { status } = machine.run('systemctl', 'start', service)

  assert.is(status, 0, machine.run('journalctl', '--unit', service, '--output', 'cat').stdout)
  const guarantees = events(machine).flatMap(it => (it.event === 'job.start' ? [it.guarantee] : []))
  assert.equal(guarantees, ['watch+sandbox', 'watch+sandbox', 'watch'])
  const common = ['home ENOENT', 'other EROFS', 'disk ENOENT']
  const walls = ['lock ENOENT', 'namespace fails', 'wrapped true', 'nice 19']
  for (const job of ['core', 'dpi'])
    assert.equal(output(machine, job), ['temporary works', 'charged works', ...common, ...walls])
  const none = ['lock works', 'namespace works', 'wrapped false', 'nice 19']
  assert.equal(output(machine, 'agent'), ['temporary EACCES', 'charged ENOENT', ...common, ...none])
  assert.equal(stateOf(machine).ActiveState, 'inactive')
})

withMachine('the journal has the priority of each line', async () => {
  const machine = await machineWith("process.exit(job === 'core' ? 1 : 0)")

  machine.run('systemctl', 'start', '--no-block', service)
  await until('the training has failed', () => stateOf(machine).ExecMainStatus === '1')

  const { stdout } = machine.run('journalctl', '--unit', service, '--output', 'json')
  const entries = stdout
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  const priority = (text: string) => entries.find(it => it.MESSAGE.includes(text)).PRIORITY
  assert.is(priority('training, pid'), '6')
  assert.is(priority('training ended with exit code 1'), '4')
  assert.is(priority('core: failed'), '3')
})

withMachine('systemd tries again what may pass, and nothing else', async () => {
  const machine = await machineWith(publishes)
  const tooMuch = `fs.writeFileSync(dir + '/big', Buffer.alloc(30e6))\n${publishes}`
  const cases = [
    { exitCode: '1', subState: 'auto-restart', body: 'process.exit(9)', maxDiskMb: 20 },
    { exitCode: '2', subState: 'failed', body: tooMuch, maxDiskMb: 20 },
    { exitCode: '78', subState: 'failed', body: publishes, maxDiskMb: 0 },
  ]
  for (const { exitCode, subState, body, maxDiskMb } of cases) {
    writeTraining(machine, body, maxDiskMb)

    machine.run('systemctl', 'start', '--no-block', service)
    const state = await until(`exit code ${exitCode}`, () => {
      const now = stateOf(machine)
      return now.ExecMainStatus === exitCode && now.MainPID === '0' ? now : undefined
    })
    machine.run('systemctl', 'stop', service)

    assert.is(state.SubState, subState, `exit code ${exitCode}`)
    assert.is(state.StartLimitIntervalUSec, '0')
  }
})

withMachine('a service that is stopped, or whose main process is killed, leaves nothing', async () => {
  const lingers = `spawn('setsid', ['sleep', '1000'], { detached: true, env: {}, stdio: 'ignore' }).unref()
process.on('SIGTERM', () => { console.log('told to end'); process.exit(0) })
console.log('ready')
setInterval(() => {}, 1000)`
  const machine = await machineWith(lingers, 'off')
  const endings = [
    { end: ['systemctl', 'stop', service], activeState: 'inactive' },
    { end: ['systemctl', 'kill', '--kill-who=main', '--signal=KILL', service], activeState: 'activating' },
  ]
  for (const { end, activeState } of endings) {
    machine.run('systemctl', 'start', '--no-block', service)
    await until(
      'a training is going on',
      () => processes(machine).length > 3 && output(machine, 'core')[0] === 'ready',
    )

    machine.run(...end)

    await until('nothing is left', () => !processes(machine).length)
    assert.is(stateOf(machine).ActiveState, activeState)
  }
})

withMachine('the boot goes on while the service trains', async () => {
  const machine = await machineWith("console.log('ready')\nsetInterval(() => {}, 1000)")

  const { status, stderr } = machine.run('systemctl', 'start', 'multi-user.target')

  assert.is(status, 0, stderr)
  await until('the training is going on', () => output(machine, 'core')[0] === 'ready')
  assert.is(stateOf(machine).SubState, 'start')
  machine.run('systemctl', 'stop', service)
})

// The tests go in this order: the first finds a machine without a trace of the program.
withMachine(
  'install starts a timer at once, changes nothing twice, and uninstall ends what runs',
  async () => {
    const machine = await bareMachine()
    const every = [...script('install.ts'), '--every', '7d']
    const first = machine.run(...every).stdout
    const timer = machine.run('systemctl', 'is-active', 'ransomeye-retrain.timer').stdout

    const second = machine.run(...every).stdout
    const third = machine.run(...script('install.ts'), '--uninstall').stdout

    assert.match(first, /^made the system user ransomeye\nmade \/var\/lib\/ransomeye\/models\nwrote /)
    assert.is(timer, 'active\n')
    assert.match(second, /^nothing to do: all of it is installed\n/)
    assert.is(third.match(/^removed /gm)?.length, 3)
    assert.ok(existsSync(machine.path(models)))
    assert.is(machine.run('systemctl', 'is-active', 'ransomeye-retrain.timer').stdout, 'inactive\n')
  },
)

withMachine('install refuses a models folder in which the service could not write', async () => {
  const machine = await bareMachine()
  machine.run('rm', '-r', models)
  mkdirSync(machine.path(models, 'core'), { recursive: true })

  const refused = machine.run(...script('install.ts'))
  machine.run('chown', '-R', 'ransomeye:ransomeye', models)
  const accepted = machine.run(...script('install.ts'))

  assert.is(refused.status, 3)
  assert.match(
    refused.stderr,
    /which cannot write in \/var\/lib\/ransomeye\/models; give it all .*: chown -R ransomeye:ransomeye \/var\/lib\/ransomeye\/models\n$/,
  )
  assert.is(accepted.status, 0, accepted.stderr)
})

withMachine('systemd reads every word of a unit as it was meant', async () => {
  const machine = await bareMachine()
  const program = '/opt/100% of $HOME/print'
  mkdirSync(machine.path(dirname(program)))
  cpSync('/usr/bin/printf', machine.path(program))
  const words = [
    'a b',
    '100%',
    '%n',
    '$HOME',
    `$\{HOME}`,
    '"quoted"',
    "it's",
    'back\\slash',
    '\\n',
    ';',
    'é',
    '#',
  ]
  const command = [program, '<%s>\\n', ...words]
  const modelsDir = `/home/an operator/my "models" 100% of $HOME \\ it's`
  machine.run('useradd', '--system', '--user-group', 'ransomeye')
  machine.run('install', '-d', '-o', 'ransomeye', modelsDir)
  for (const argv of [command, ['/usr/bin/sh', '-c', 'touch "$RANSOMEYE_MODELS_DIR/written"']]) {
    const [unit] = renderUnits({ command: argv, modelsDir, systemdVersion: 0 })
    writeFileSync(machine.path('etc/systemd/system', service), unit!.text)
    machine.run('systemctl', 'daemon-reload')

    assert.is(machine.run('systemctl', 'start', service).status, 0)
  }

  const { stdout } = machine.run('journalctl', '--unit', service, '--output', 'cat')
  assert.equal(
    stdout.match(/^<.*>$/gm),
    words.map(word => `<${word}>`),
  )
  assert.ok(existsSync(machine.path(modelsDir, 'written')))
})

for (const [what, at, ...options] of [
  ['systemd', '/usr/bin/systemctl', '--bind', '/dev/null'],
  ['a systemd that runs', '/run/systemd', '-t', 'tmpfs', 'tmpfs'],
] as const) {
  withMachine(`install without ${what} shows a line that works in another boot script`, async () => {
    const machine = await bareMachine()
    machine.run('rm', '-rf', models, join('/etc/systemd/system', service))
    machine.run('mount', ...options, at)
    try {
      const stdout = installWith(machine, publishes)
      const line = stdout.trim().split('\n').at(-1)!
      const ended = machine.run('sh', '-c', line)

      assert.not.match(stdout, /systemctl start/)
      assert.match(line, /^ {2}runuser -u ransomeye -- /)
      assert.is(ended.status, 0, ended.stdout)
      assert.ok(existsSync(machine.path(models, 'agent', 'agent.onnx')))
    } finally {
      machine.run('umount', at)
    }
  })
}

test.run()
