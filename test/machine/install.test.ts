import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { renderUnits } from '../../lib/machine/units.ts'
import { install } from '../../scripts/install.ts'
import { failure } from '../support/failure.ts'
import { root } from '../support/places.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const folder = 'etc/systemd/system'
const names = ['ransomeye-trainer.service', 'ransomeye-retrain.service', 'ransomeye-retrain.timer']
const hasSystemd = spawnSync('systemctl', ['--version']).status === 0
const isRoot = process.geteuid?.() === 0

/** The smallest image of a machine: one that has users. */
function image(files: Record<string, string> = {}): Promise<Sandbox> {
  const users = { passwd: 'root:x:0:0::/root:/bin/sh\n', group: 'root:x:0:\n', shadow: 'root:*:1::::::\n' }
  const entries = Object.entries(users).map(([name, text]) => [`etc/${name}`, text])
  return sandbox({ ...Object.fromEntries(entries), ...files })
}

/** The words about an image without this project, wherever that stands here. */
const missing = root.startsWith('/tmp/')
  ? /^WARNING: the service cannot run what is in /
  : new RegExp(`^WARNING: the units name ${root} and ${process.execPath}, which the image does not have;`)

/** Every path below a folder with its content; a link with what it points to. */
function contents(dir: string): Record<string, string> {
  const listed = spawnSync('find', [dir, '-printf', '%P %l\\n'], { encoding: 'utf8' }).stdout.split('\n')
  return Object.fromEntries(
    listed.filter(Boolean).map(line => {
      const [path, target] = line.split(' ')
      const stats = spawnSync('cat', [join(dir, path!)], { encoding: 'utf8' })
      return [path!, target || stats.stdout]
    }),
  )
}

/** Writes what `--print` shows into files, each under its name; gives their paths. */
function unpack(shown: string, dir: string): string[] {
  const parts = shown.split(/^# \/etc\/systemd\/system\/(.+)\n/m).slice(1)
  const paths: string[] = []
  for (let i = 0; i < parts.length; i += 2) {
    paths.push(join(dir, parts[i]!))
    writeFileSync(paths.at(-1)!, parts[i + 1]!)
  }
  return paths
}

function analyze(...args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('systemd-analyze', args, { encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

const withSystemd = skipUnless(test, hasSystemd, 'needs systemd')
const withSystemdInSweep = skipUnless(inSweep, hasSystemd, 'needs systemd')
const asRoot = skipUnless(test, hasSystemd && isRoot, 'needs root and systemd')
const asRootInSweep = skipUnless(inSweep, hasSystemd && isRoot, 'needs root and systemd')

withSystemd('install --print shows units that systemd-analyze verifies without a word', async () => {
  await using box = await sandbox()

  const paths = unpack(await install(['--print', '--every', '7d']), box.dir)
  const verified = analyze('verify', '--recursive-errors=yes', ...paths)

  assert.equal(
    paths,
    names.map(name => box.path(name)),
  )
  assert.equal(verified, { status: 0, output: '' })
})

withSystemd('the services have an exposure of at most 1.5', async () => {
  await using box = await sandbox()
  const threshold = isInHome(root) ? 16 : 15 // they have to see that home

  const paths = unpack(await install(['--print', '--every', '7d']), box.dir).slice(0, 2)
  const judged = paths.map(path => analyze('security', '--offline=true', `--threshold=${threshold}`, path))

  for (const { status, output } of judged) assert.is(status, 0, output)
})

function isInHome(path: string): boolean {
  return /^\/(home|root|run\/user)\//.test(path)
}

test('install --print writes nothing and needs no root', async () => {
  await using box = await image()
  const before = contents(box.dir)

  const shown = await asNobody(() => install(['--print', '--root', box.dir]))

  assert.match(shown, /^# \/etc\/systemd\/system\/ransomeye-trainer\.service\n/)
  assert.equal(contents(box.dir), before)
})

test('install names what is in an image by its path there, and warns of what is not', async () => {
  const args = ['--quotas', join(root, 'quotas.json'), '--models-dir', join(root, 'models')]

  const shown = await install(['--print', '--root', root, ...args])

  assert.match(
    shown,
    /^ExecStart=\S+ --import file:\/\/\/lib\/system\/tsx\/\S+ \/tasks\.ts .*--quotas \/quotas\.json$/m,
  )
  assert.match(shown, /^Environment=.* RANSOMEYE_MODELS_DIR=\/models$/m)
  assert.ok(!shown.includes(root))
  assert.ok(shown.includes(`# WARNING: the units name ${process.execPath}, which the image does not have;`))
})

test('install prints no timer unless asked for one', async () => {
  const shown = await install(['--print'])

  assert.not.match(shown, /retrain/)
})

test('install has the retraining service retrain, and only that one', async () => {
  const shown = await install(['--print', '--every', '1d'])

  assert.is(shown.match(/^ExecStart=/gm)?.length, 2)
  assert.match(shown.split('ransomeye-retrain.service')[1]!, /^ExecStart=.* --retrain$/m)
  assert.is(shown.match(/ --retrain$/gm)?.length, 1)
})

test('install never lets systemd try again what cannot help', async () => {
  const shown = await install(['--print'])

  assert.match(shown, /^Restart=on-failure$/m)
  assert.match(shown, /^RestartPreventExitStatus=2 4 64 78$/m)
})

test('install refuses intervals that no calendar can repeat', async () => {
  for (const every of ['soon', '0d', '-1d', '1', '5h', '10d', '90s', '90m', '1.5h', '']) {
    const attempt = () => install(['--print', `--every=${every}`])

    const { message, exitCode } = await failure(attempt)

    assert.match(message, /--every is /)
    assert.is(exitCode, 64)
  }
})

withSystemdInSweep('install writes intervals that systemd understands as those', async () => {
  const gapHours: Record<string, number[]> = {
    '1h': [1],
    '12h': [12],
    '24h': [24],
    '7d': [168],
    '14d': [14 * 24, 15 * 24, 16 * 24, 17 * 24],
    '30d': [28 * 24, 29 * 24, 30 * 24, 31 * 24],
  }
  for (const [every, expected] of Object.entries(gapHours)) {
    const calendar = /^OnCalendar=(.*)$/m.exec(await install(['--print', '--every', every]))?.[1]

    const { output } = analyze('calendar', '--iterations=5', calendar!)

    const times = [...output.matchAll(/(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC/g)].map(([, time]) =>
      Date.parse(`${time}Z`),
    )
    const unique = [...new Set(times)]
    assert.ok(unique.length >= 5, output)
    for (const [index, time] of unique.slice(1).entries()) {
      assert.ok(expected.includes((time - unique[index]!) / 3_600_000), `${every}: ${output}`)
    }
  }
})

asRoot('install makes the user, writes and enables the units, and a second time nothing', async () => {
  await using box = await image()

  const first = await install(['--root', box.dir, '--every', '7d'])
  const after = contents(box.dir)
  const second = await install(['--root', box.dir, '--every', '7d'])

  assert.match(first.split('\n').at(-1)!, missing)
  assert.equal(first.split('\n').slice(0, -1), [
    'made the system user ransomeye',
    ...names.map(name => `wrote ${box.path(folder, name)}`),
    'enabled ransomeye-trainer.service',
    'enabled ransomeye-retrain.timer',
  ])
  assert.match(after['etc/passwd']!, /^ransomeye:x:\d+:\d+::\/var\/lib\/ransomeye:\/usr\/sbin\/nologin$/m)
  assert.ok(`${folder}/multi-user.target.wants/ransomeye-trainer.service` in after)
  assert.ok(`${folder}/timers.target.wants/ransomeye-retrain.timer` in after)
  assert.match(second, /^nothing to do: all of it is installed\n/)
  assert.equal(contents(box.dir), after)
})

asRoot('install names the installation, or the package, whose place a unit takes', async () => {
  const unit = `${folder}/ransomeye-trainer.service`
  const packaged = 'usr/lib/systemd/system/ransomeye-trainer.service'
  await using box = await image({ [packaged]: '[Unit]\n' })

  const hiding = await install(['--root', box.dir])
  const text = readFileSync(box.path(unit), 'utf8')
  writeFileSync(box.path(unit), text.replace(/\S+tasks\.ts/, '/opt/first/tasks.ts'))
  const second = await install(['--root', box.dir])

  assert.match(hiding, `ransomeye-trainer.service now hides the package's: ${box.path(packaged)}`)
  assert.match(
    second,
    /^ransomeye-trainer\.service started another installation, which it leaves: .*\/opt\/first\/tasks\.ts/m,
  )
})

asRootInSweep('install without --every takes an earlier timer away', async () => {
  await using box = await image()
  await install(['--root', box.dir, '--every', '7d'])

  await install(['--root', box.dir])

  const left = Object.keys(contents(box.dir)).filter(path => path.includes('retrain'))
  assert.equal(left, [])
  assert.ok(existsSync(box.path(folder, 'ransomeye-trainer.service')))
})

asRootInSweep(
  'install --uninstall removes exactly what was installed and keeps drop-ins, models and the user',
  async () => {
    const dropIn = `${folder}/ransomeye-trainer.service.d/override.conf`
    const model = 'var/lib/ransomeye/models/core/core.onnx'
    const other = `${folder}/other.service`
    await using box = await image({ [dropIn]: '[Service]\nNice=5\n', [model]: 'model', [other]: '[Unit]\n' })
    await install(['--root', box.dir])
    const user = readFileSync(box.path('etc/passwd'), 'utf8')
    await install(['--root', box.dir, '--every', '7d'])

    const said = await install(['--root', box.dir, '--uninstall'])
    const again = await install(['--root', box.dir, '--uninstall'])

    const left = contents(box.dir)
    assert.equal(
      [dropIn, model, other].map(path => left[path]),
      ['[Service]\nNice=5\n', 'model', '[Unit]\n'],
    )
    assert.is(left['etc/passwd'], user)
    assert.equal(
      readdirSync(box.path(folder)).filter(name => /\.(service|timer)$/.test(name)),
      ['other.service'],
    )
    assert.equal(
      Object.keys(left).filter(path => path.includes('.wants/')),
      [],
    )
    assert.match(said, /^kept models, state, the user ransomeye, .*ransomeye-trainer\.service\.d$/m)
    assert.is(again, 'nothing to do: none of it is installed')
  },
)

asRootInSweep(
  'install touches neither a unit that is not its own nor a masked one, and removes its own beside',
  async () => {
    await using box = await image({
      [`${folder}/ransomeye-trainer.service`]: '[Service]\nExecStart=/bin/true\n',
    })
    await using masked = await image()
    mkdirSync(masked.path(folder), { recursive: true })
    symlinkSync('/dev/null', masked.path(folder, 'ransomeye-trainer.service'))

    for (const { dir } of [box, masked]) {
      const before = contents(join(dir, folder))
      const { message } = await failure(() => install(['--root', dir]))
      assert.match(message, /not made here; (move it away|systemctl unmask)/)
      assert.is(await install(['--root', dir, '--uninstall']), 'nothing to do: none of it is installed')
      assert.equal(contents(join(dir, folder)), before)
    }
    await using own = await image()
    await install(['--root', own.dir])
    symlinkSync('/dev/null', own.path(folder, 'ransomeye-retrain.timer'))
    await install(['--root', own.dir])
    await install(['--root', own.dir, '--uninstall'])
    const left = readdirSync(own.path(folder)).filter(name => !name.endsWith('.wants'))
    assert.equal(left, ['ransomeye-retrain.timer'])
  },
)

test('install refuses to change this machine for anyone but root, in one line', async () => {
  for (const args of [[], ['--uninstall']]) {
    const attempt = () => asNobody(() => install(args))

    const { message, exitCode } = await failure(attempt)

    assert.is(message, 'Cannot change this machine: not root; use sudo, or --print to see the units')
    assert.is(exitCode, 64)
  }
})

test('install refuses an image that is not there, and a path that cannot stand in a unit', async () => {
  const image = await failure(() => install(['--root', '/no/such/image']))
  assert.match(image.message, /--root is "\/no\/such\/image"/)
  for (const folder of ['/tmp/models', '/var/tmp']) {
    const { message, exitCode } = await failure(() => install(['--print', '--models-dir', folder]))
    assert.match(message, /^Cannot use \/.*: the service sees no \/tmp/)
    assert.is(exitCode, 64)
  }
  const path = await failure(() => install(['--print', '--models-dir', '/srv/a\nb']))
  assert.match(path.message, /"\/srv\/a\\nb" has control characters/)
})

inSweep("install says that a folder which the service cannot see is the environment's", () => {
  const args = ['--import', 'tsx', 'scripts/install.ts', '--print']
  const env = { ...process.env, RANSOMEYE_MODELS_DIR: '/tmp/models' }

  const { status, stderr } = spawnSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' })

  assert.is(status, 64)
  assert.match(stderr, /Cannot use \/tmp\/models of RANSOMEYE_MODELS_DIR: the service sees no \/tmp/)
})

test('install shows the service the one home that it needs, and lets it write models elsewhere', () => {
  const [unit] = renderUnits({
    command: ['/usr/bin/node', '/home/ransomeye/rebuild/core/trainer/tasks.ts'],
    modelsDir: '/srv/my models',
    systemdVersion: 252,
  })

  const [homeless] = renderUnits({ command: ['/usr/bin/x'], modelsDir: '/srv/m', systemdVersion: 252 })

  assert.match(unit!.text, /^ProtectHome=tmpfs\nBindReadOnlyPaths=\/home\/ransomeye\n/m)
  assert.match(homeless!.text, /^ProtectHome=yes\n/m)
  assert.match(unit!.text, /^ReadWritePaths=-"\/srv\/my models"$/m)
  assert.not.match(unit!.text, /StateDirectory/)
})

withSystemd(
  'a unit for a newer systemd waits longer each time, and an older one is not confused by it',
  async () => {
    const placement = { command: ['/bin/true'], modelsDir: '/srv/models' }

    const [old] = renderUnits({ ...placement, systemdVersion: 253 })
    const [recent] = renderUnits({ ...placement, systemdVersion: 254 })

    assert.not.match(old!.text, /RestartSteps/)
    for (const { text } of [old!, recent!]) assert.match(text, /^StartLimitIntervalSec=0$/m)
    assert.match(recent!.text, /^RestartSteps=\d+\nRestartMaxDelaySec=6h$/m)
  },
)

const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups']
const isReadable =
  isRoot && spawnSync('setpriv', [...nobody, 'test', '-r', join(root, 'tasks.ts')], { cwd: '/' }).status === 0

skipUnless(
  inSweep,
  isReadable,
  'needs root and a project that others can read',
)('the command of the unit works as another user, from /, with an empty environment', async () => {
  const command = /^ExecStart=(.*)$/m.exec(
    await install(['--print', '--models-dir', '/nonexistent/models']),
  )![1]!
  const argv = [...nobody, '--', ...command.split(' '), '--models-dir', '/nonexistent/models', '--dry-run']

  const { status, stdout, stderr } = spawnSync('setpriv', argv, { cwd: '/', env: {}, encoding: 'utf8' })

  assert.is(stderr, '')
  assert.match(stdout, /would train core, dpi, agent/)
  assert.is(status, 0)
})

test.run()
