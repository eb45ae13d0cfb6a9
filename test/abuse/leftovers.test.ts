import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { emptyFolder } from '../../lib/storage/empty-folder.ts'
import { measure } from '../../lib/storage/measure.ts'
import { mendWork } from '../../lib/storage/mend-folder.ts'
import { checkUsage } from '../../lib/storage.ts'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { type AbuseRig, abuseRig, asUser, identities, PRELUDE } from '../support/abuse.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, inTurn, test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'
import { hasLoopDevices } from '../support/volume-rig.ts'

const hasPython = existsSync('/usr/bin/python3')
const canAttack = useSandbox('core', 'auto') && hasPython
const isRoot = hasPython && process.getuid?.() === 0
const asRoot = skipUnless(test, isRoot, 'needs root and python3')
const asRootInSweep = skipUnless(inSweep, isRoot, 'needs root and python3')
/** The share that each identity has of the tests that all of them have. */
const turns = identities.map((_, turn) => inTurn(turn, identities.length))
const withPython = skipUnless(test, hasPython, 'needs python3')
const onBtrfs = skipUnless(
  inSweep,
  hasPython && hasLoopDevices && spawnSync('mkfs.btrfs', ['--version']).status === 0,
  'needs root, loop devices, btrfs-progs and python3',
)

/** Things that a training can make of its output folder, by name. */
const leftovers = {
  'a link in the place of its temporary folder': `os.rename(out + '/tmp', out + '/old'); os.symlink('/etc', out + '/tmp')`,
  'a file in its place': `os.rename(out + '/tmp', out + '/old'); open(out + '/tmp', 'w').close()`,
  'a FIFO in its place': `os.rename(out + '/tmp', out + '/old'); os.mkfifo(out + '/tmp')`,
  'a socket in its place': `
os.rename(out + '/tmp', out + '/old'); os.chdir(out); socket.socket(socket.AF_UNIX).bind('tmp')`,
  'no temporary folder at all': `os.rename(out + '/tmp', out + '/old')`,
  'folders that nobody may enter': `
for path in ['/tmp/a/b', '/c/d/e']: os.makedirs(out + path); open(out + path + '/core.bin', 'w').close()
for path in ['/tmp/a/b', '/tmp/a', '/tmp', '/c/d/e', '/c/d', '/c', '']: os.chmod(out + path, 0)`,
  'folders where its models and its report belong': `
os.makedirs(out + '/core.bin/x'); os.makedirs(out + '/metadata.json/x'); os.chmod(out + '/core.bin', 0)`,
  'folders deeper than a path can name, the last of them closed': `
for top in ['', 'tmp']:
    os.chdir(out + '/' + top)
    for _ in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)
    os.chmod('.', 0)`,
}

for (const [what, attack] of Object.entries(leftovers)) {
  withPython(`mendWork() makes an output folder usable in which a training left ${what}`, async () => {
    await using box = await sandbox({ 'job/work/tmp/before': 1 })
    const work = box.path('job/work')
    chmodSync(box.dir, 0o777)
    if (process.getuid?.() === 0) execFileSync('chown', ['-R', '65534', box.path('job')])
    const args = ['-c', PRELUDE + attack]

    await asNobody(async () => {
      execFileSync('/usr/bin/python3', args, { env: { RANSOMEYE_OUTPUT_DIR: work } })
      await mendWork(work)
      writeFileSync(`${work}/tmp/mine`, '')
      await measure(box.path('job'))
    })

    assert.equal(readdirSync(`${work}/tmp`), ['mine'])
    await emptyFolder(work) // too deep for what cleans up
  })
}

for (const { name, uid } of identities) {
  skipUnless(
    inSweep,
    canAttack,
    'needs bubblewrap and python3',
  )(
    `what a training of ${name} makes of its output folder does not keep the next from starting`,
    async () => {
      await using rig = await abuseRig(uid)
      await rig.attack(`
os.rename(out + '/tmp', out + '/old'); os.symlink('/etc', out + '/tmp')
os.makedirs(out + '/core.bin/x/y')
for path in ['/core.bin/x/y', '/core.bin/x', '/core.bin', '/old', '']: os.chmod(out + path, 0)
sys.exit(1)`)

      const { exitCode, events } = await rig.attack(`open('/tmp/mine', 'w').close(); publish()`)

      assert.is(exitCode, 0, JSON.stringify(events.at(-1)))
      assert.ok(statSync(rig.path('models/core/work/tmp')).isDirectory())
    },
  )
}

asRootInSweep('what an unconfined training of root made immutable is removed where it must go', async () => {
  await using rig = await abuseRig(0, { sandbox: 'off' })
  const { lines } = await rig.attack(`
os.makedirs(out + '/tmp/closed/deep'); open(out + '/tmp/closed/deep/file', 'w').close(); open(out + '/tmp/more', 'w').close()
open(out + '/core.bin', 'w').close()
for path in ['/tmp/closed/deep/file', '/tmp/closed/deep', '/tmp/closed', '/tmp', '/core.bin']:
    subprocess.run(['chattr', '+i', out + path], check=True)
subprocess.run(['chattr', '+a', out + '/tmp/more'])
print('made')
sys.exit(1)`)
  try {
    const { exitCode, events } = await rig.attack('publish()')

    assert.equal(lines, ['made'])
    assert.is(exitCode, 0, JSON.stringify(events.at(-1)))
  } finally {
    spawnSync('chattr', ['-R', '-f', '-i', '-a', rig.modelsDir])
  }
})

asRoot(
  'an ordinary user whose start something immutable keeps back is told what and the remedy',
  async () => {
    const { uid } = identities.at(-1)!
    await using rig = await abuseRig(uid)
    const path = rig.path('models/core/work/tmp/immutable')
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, '')
    execFileSync('chown', ['-R', `${uid}`, rig.path('models/core')])
    execFileSync('chattr', ['+i', path])
    try {
      const { exitCode, events } = await rig.begin('publish()').ended

      assert.is(exitCode, 3)
      const [failure] = events.flatMap(it => (it.event === 'job.fail' ? [it.message] : []))
      assert.match(
        failure ?? '',
        `Cannot delete ${path}: EPERM at unlink; it may be immutable, as root: chattr -R -i -a`,
      )
    } finally {
      execFileSync('chattr', ['-i', path])
    }
  },
)

onBtrfs('subvolumes go like folders where they must go, and are charged and pruned elsewhere', async () => {
  await using rig = await abuseRig(0, { sandbox: 'off', maxDiskMb: 50, prune: ['step-*'] })
  execFileSync('truncate', ['-s', '300M', rig.path('image')])
  execFileSync('mkfs.btrfs', ['-q', rig.path('image')])
  execFileSync('mount', ['-o', 'loop', rig.path('image'), rig.modelsDir])
  try {
    const make = (...names: string[]) =>
      names
        .map(name => `subprocess.run(['btrfs', '-q', 'subvolume', 'create', out + '/${name}'], check=True)\n`)
        .join('')
    await rig.attack(`
${make('tmp/a', 'tmp/a/b')}
open(out + '/tmp/a/b/file', 'w').close()
sys.exit(1)`)
    const first = await rig.attack(`
${make('kept', 'kept/inner', 'step-1', 'step-1/inner')}
for name, mib in [('kept/inner', 10), ('step-1/inner', 30)]:
    with open(out + '/' + name + '/file', 'wb') as file: file.write(bytes(mib * 2 ** 20))
publish()`)
    const usedBytes = await checkUsage(rig.path('models/core'))
    const quotas = readFileSync(rig.path('quotas.json'), 'utf8')
    writeFileSync(rig.path('quotas.json'), quotas.replace('"maxDiskMb":50', '"maxDiskMb":20'))
    const second = await rig.attack('publish()', ['--retrain'])

    assert.equal([first.exitCode, second.exitCode], [0, 0], JSON.stringify(second.events.at(-1)))
    assert.ok(usedBytes > 40 * 2 ** 20 && usedBytes < 41 * 2 ** 20, `${usedBytes} bytes`)
    assert.ok(existsSync(rig.path('models/core/work/kept/inner/file')))
    assert.not(existsSync(rig.path('models/core/work/step-1')))
  } finally {
    execFileSync('umount', [rig.modelsDir])
  }
})

const READER = 12_346
const lockIt =
  'import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print("held", flush=True); time.sleep(60)'

/** Another user, who may read the models folder, locks something in it; killed at the end. */
async function lockedByReader(path: string): Promise<Disposable> {
  const [program, ...args] = [...asUser(READER), '/usr/bin/python3', '-c', lockIt, path]
  const reader = spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(reader.stdout, 'data')
  return { [Symbol.dispose]: () => reader.kill('SIGKILL') }
}

/** Everybody may read it, as an operator may have decided. */
async function openToReaders(rig: AbuseRig): Promise<string> {
  await rig.attack('publish()')
  execFileSync('chmod', ['-R', 'a+rX', rig.modelsDir])
  return join(rig.modelsDir, '.trainer')
}

for (const [turn, { name, uid }] of identities.entries()) {
  const asRootHere = skipUnless(turns[turn]!, isRoot, 'needs root and python3')
  for (const [what, path] of [
    ['folder of the lock', '.trainer'],
    ['lock that was left open to readers', '.trainer/lock'],
  ] as const) {
    const lockHere = path === '.trainer' ? asRootHere : asRootInSweep
    lockHere(`somebody who may only read locks the ${what}, and ${name} trains all the same`, async () => {
      await using rig = await abuseRig(uid)
      await openToReaders(rig)
      if (path.endsWith('lock')) writeFileSync(rig.path('models', path), '1\n') // of an earlier version
      using _reader = await lockedByReader(rig.path('models', path))

      const { exitCode, events } = await rig.attack('publish()', ['--retrain'])

      assert.is(exitCode, 0, JSON.stringify(events.at(-1)))
      assert.is(statSync(rig.path('models/.trainer/lock')).mode & 0o777, 0o600)
    })
  }

  skipUnless(
    inSweep,
    isRoot,
    'needs root and python3',
  )(`${name} does not run twice though a reader holds the folder and the lock file is removed`, async () => {
    await using rig = await abuseRig(uid)
    const state = await openToReaders(rig)
    using _reader = await lockedByReader(state)
    const first = rig.begin(
      `
open(out + '/here', 'w').close()
while not os.path.exists(out + '/go'): time.sleep(0.02)
publish()`,
      ['--retrain'],
    )
    await until('it trains', () => existsSync(rig.path('models/core/work/here')))
    rmSync(join(state, 'lock'))

    const second = await rig.run(['dpi'], { prefix: asUser(uid) })
    writeFileSync(rig.path('models/core/work/go'), '')
    const { exitCode } = await first.ended

    assert.equal([second.exitCode, exitCode], [75, 0])
    assert.match(second.stderr, `pid ${first.pid}`)
  })
}

asRootInSweep(
  'a holder that cannot be seen from here is named with the machine that it has written down',
  async () => {
    const { uid } = identities.at(-1)!
    await using rig = await abuseRig(uid)
    await rig.attack('publish()')
    const lock = rig.path('models/.trainer/lock')
    writeFileSync(lock, '17\nhost n2\nboot another\njob 4\n')
    // An ordinary user sees no descriptor of root's, as nobody sees those of another machine.
    const holder = spawn('flock', [lock, 'sleep', '60'])
    await until('it is held', () => spawnSync('flock', ['-n', lock, 'true']).status === 1)

    const { exitCode, stderr } = await rig
      .run(['dpi'], { prefix: asUser(uid) })
      .finally(() => holder.kill('SIGKILL'))

    assert.is(exitCode, 75)
    assert.match(stderr, `${lock}: pid 17 on n2, Slurm job 4;`)
  },
)

skipUnless(
  inSweep,
  canAttack,
  'needs bubblewrap and python3',
)(
  'a training that cannot be counted any more is ended at once, without a grace in which nobody watches',
  async () => {
    await using rig = await abuseRig(identities.at(-1)!.uid, { maxDiskMb: 40, graceSeconds: 10 })
    const attack = `
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.mkdir(out + '/closed'); os.chmod(out + '/closed', 0)
for n in range(400):
    with open(f'{out}/{n}', 'wb') as file: file.write(bytes(2**20))
    time.sleep(0.02)`

    const { exitCode, events } = await rig.attack(attack)

    assert.is(exitCode, 1)
    assert.match(
      events.find(it => it.event === 'job.fail')!.message,
      /^Stopped core: its training keeps a folder of its own from being counted\. .*work\/closed: EACCES/,
    )
    // In ten seconds it would have written all of them.
    assert.ok(readdirSync(rig.path('models/core/work')).length < 100)
    assert.is((await rig.attack('publish()')).exitCode, 0)
  },
)

test.run()
