import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import * as assert from 'uvu/assert'
import { readProc } from '../../lib/system/processes.ts'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { abuseRig, asUser, identities, PRELUDE } from '../support/abuse.ts'
import { trainerRig, untilEvent } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, inTurn, test } from '../support/test.ts'

const canAttack = useSandbox('core', 'auto') && existsSync('/usr/bin/python3')
const needs = 'needs bubblewrap and python3'
const hostile = skipUnless(test, canAttack, needs)
const hostileInSweep = skipUnless(inSweep, canAttack, needs)
const asRootInSweep = skipUnless(
  inSweep,
  canAttack && process.getuid?.() === 0,
  'needs root, bubblewrap and python3',
)

/** Looks at every descriptor of every process in sight, and tries what it can open of the run's. */
const reachesLock = `
reached = []
for pid in filter(str.isdigit, os.listdir('/proc')):
    try: names = os.listdir('/proc/' + pid + '/fd')
    except OSError: continue
    for name in names:
        path = '/proc/' + pid + '/fd/' + name
        try:
            if '/.trainer/' not in os.readlink(path): continue
            os.close(os.open(path, os.O_RDWR))
            reached.append(path)
        except OSError: pass
print('descriptors', 'reached' if reached else 'none')
attempt('by name', lambda: os.stat(models + '/.trainer/lock'))
attempt('by write', lambda: open(models + '/.trainer/mine', 'w'))
publish()`

/** A service on a UNIX socket that everybody may use; `@` begins an abstract address. */
const LISTENER = `
import os, socket, sys
path = sys.argv[1].replace('@', chr(0))
it = socket.socket(socket.AF_UNIX); it.bind(path); it.listen()
if path[0] == '/': os.chmod(path, 0o777)
print('listening', flush=True)
while True: it.accept()[0].close()`

for (const [turn, { name, uid }] of identities.entries()) {
  const hostileHere = skipUnless(inTurn(turn, identities.length), canAttack, needs)

  hostileHere(
    `a training of ${name} reaches nothing of the run from its sandbox; without one it does`,
    async () => {
      await using rig = await abuseRig(uid)
      await using open = await abuseRig(uid, { sandbox: 'off' })

      const { lines } = await rig.attack(reachesLock)
      const control = await open.attack(reachesLock)

      assert.equal(lines, ['descriptors none', 'by name ENOENT', 'by write EROFS'])
      assert.equal(control.lines.slice(0, 2), ['descriptors reached', 'by name works'])
    },
  )

  hostileHere(
    `a training of ${name} changes no setting of the kernel and has no disk, memory or terminal`,
    async () => {
      await using rig = await abuseRig(uid)

      const { lines } = await rig.attack(`
changed = []
for folder, _, files in os.walk('/proc/sys'):
    for file in files:
        try: os.close(os.open(folder + '/' + file, os.O_WRONLY)); changed.append(folder + '/' + file)
        except OSError: pass
for path in ['/proc/sysrq-trigger', '/proc/kcore', '/proc/kmem', '/proc/mtrr', '/sys/power/state', '/sys/kernel/uevent_helper',
             '/sys/fs/cgroup/cgroup.procs', '/dev/mem', '/dev/port', '/dev/kmsg', '/dev/sda', '/dev/vda', '/dev/loop0', '/dev/nvme0n1', '/dev/fuse', '/dev/kvm', '/dev/pts/0']:
    try: os.close(os.open(path, os.O_WRONLY | os.O_NOCTTY)); changed.append(path)
    except OSError: pass
print('changed', changed)
import stat
blocks = [it for it in os.listdir('/dev') if stat.S_ISBLK(os.lstat('/dev/' + it).st_mode)]
print('disks', blocks)
attempt('mknod', lambda: os.mknod(out + '/disk', 0o600 | stat.S_IFBLK, os.makedev(7, 0)))
for folder in ['/dev', '/run', '/proc', '/sys', '/etc', '/']:
    attempt(folder, lambda: open(folder + '/made', 'w'))
with open('/dev/null', 'w') as null: null.write('x')
print('terminals', os.openpty() is not None)
publish()`)

      assert.equal(lines.slice(0, 3), ['changed []', 'disks []', 'mknod EPERM'])
      assert.equal(lines.slice(3), [
        ...['/dev EROFS', '/run EROFS', '/proc ENOENT', '/sys EROFS', '/etc EROFS', '/ EROFS'],
        'terminals True',
      ])
    },
  )

  hostileHere(
    `a training of ${name} makes no namespace, mount, key or ring, and does not touch its first process`,
    async () => {
      await using rig = await abuseRig(uid)
      await using open = await abuseRig(uid, { sandbox: 'off' })
      const attack = `
attempt('unshare', lambda: call((272, 97), 0x10000000))
attempt('clone', lambda: call((56, 220), 0x10000011, 0, 0, 0, 0) or os._exit(0))
attempt('own files', lambda: call((272, 97), 0x400))
attempt('own folders', lambda: call((272, 97), 0x200))
attempt('close', lambda: call((436, 436), 900, 900, 2))
attempt('own thread', lambda: call((56, 220), 0x00010000, 0, 0, 0, 0))
attempt('clone3', lambda: call((435, 435), ctypes.create_string_buffer(struct.pack('Q', 0x10000000) + bytes(80)), 88) or os._exit(0))
attempt('setns', lambda: call((308, 268), os.open('/proc/self/ns/uts', os.O_RDONLY), 0))
attempt('mount', lambda: call((165, 40), b'none', b'/tmp', b'tmpfs', 0, 0))
attempt('fsopen', lambda: call((430, 430), b'tmpfs', 0))
attempt('keyctl', lambda: call((250, 219), 0, -5, 0))
attempt('add_key', lambda: call((248, 217), b'user', b'left', b'x', 1, -4))
attempt('io_uring', lambda: call((425, 425), 8, ctypes.create_string_buffer(120)))
attempt('landlock', lambda: call((444, 444), 0, 0, 1))
attempt('ptrace', lambda: call((101, 117), 0x4206, 1, 0, 0))
attempt('vm_writev', lambda: call((311, 271), 1, 0, 0, 0, 0, 0))
attempt('pidfd', lambda: call((434, 434), 1, 0))
attempt('kcmp', lambda: call((312, 272), os.getpid(), 1, 0, 0, 0))
print('first', os.listdir('/proc/1'))
attempt('memory', lambda: os.close(os.open('/proc/1/mem', os.O_RDWR)))
attempt('its own', lambda: os.close(os.open(f'/proc/{os.getpid()}/mem', os.O_RDWR)))
attempt('handle', lambda: call((304, 265), -100, 0, 0))
attempt('flags', lambda: __import__('fcntl').ioctl(os.open(out, os.O_RDONLY), 0x40086602, struct.pack('i', 0x20)))
attempt('lease', lambda: __import__('fcntl').fcntl(os.open(out + '/leased', os.O_RDWR | os.O_CREAT), 1024, 1))
attempt('pages', lambda: call((279, 239), 0, 0, 0, 0, 0, 0))
attempt('mincore', lambda: call((27, 232), 0x10000, 0, 0))
os.mkdir(out + '/encrypted')
policy = struct.pack('4B8x', 0, 1, 4, 0)
attempt('encryption', lambda: __import__('fcntl').ioctl(os.open(out + '/encrypted', os.O_RDONLY), 0x800c6613, policy))
if column == 0:
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(b'\\x53\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\x5b\\xc3')
    caller = os.fork()
    if caller == 0:
        os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() == -38 else 1)
    # A kernel without calls of 32 bits ends the caller.
    print('int80', os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1]) in (0, -11))
    attempt('x32', lambda: call((0x40000027, 0)))
publish()`

      const { lines } = await rig.attack(attack)
      const control = await open.attack(attack)

      assert.equal(lines.slice(0, 27), [
        ...[
          'unshare EPERM',
          'clone EPERM',
          'own files EPERM',
          'own folders EPERM',
          'close EPERM',
          'own thread EPERM',
        ],
        ...['clone3 ENOSYS', 'setns EPERM', 'mount EPERM', 'fsopen EPERM'],
        ...[
          'keyctl EPERM',
          'add_key EPERM',
          'io_uring ENOSYS',
          'landlock ENOSYS',
          'ptrace EPERM',
          'vm_writev EPERM',
          'pidfd EPERM',
          'kcmp EPERM',
          'first []',
          'memory ENOENT',
          'its own works',
          'handle EPERM',
        ],
        'flags EPERM',
        'lease EPERM',
        ...['pages EPERM', 'mincore ENOSYS'],
        'encryption ENOTSUP',
      ])
      if (process.arch === 'x64') assert.equal(lines.slice(27), ['int80 True', 'x32 ENOSYS'])
      for (const call of ['add_key', 'lease', 'mincore']) assert.ok(control.lines.includes(`${call} works`))
    },
  )

  hostileInSweep(
    `a training of ${name} grows no faster than it writes; without a sandbox it does`,
    async () => {
      await using rig = await abuseRig(uid, { maxDiskMb: 100 })
      await using open = await abuseRig(uid, { maxDiskMb: 100, sandbox: 'off' })
      const attack = `
fd = os.open(out + '/grown', os.O_RDWR | os.O_CREAT)
reserve = struct.pack('hhqqiI4i', 0, 0, 0, 2**20, 0, 0, 0, 0, 0, 0)
attempt('fallocate', lambda: call((285, 47), fd, 0, 0, 2**20))
attempt('keep size', lambda: call((285, 47), fd, 1, 0, 2**20))
attempt('reserve', lambda: __import__('fcntl').ioctl(fd, 0x4030582a, reserve))
attempt('zero range', lambda: __import__('fcntl').ioctl(fd, 0x40305839, reserve))
attempt('unreserve', lambda: __import__('fcntl').ioctl(fd, 0x40305829, reserve))
attempt('direct', lambda: os.close(os.open(out + '/direct', os.O_RDWR | os.O_CREAT | os.O_DIRECT)))
attempt('direct later', lambda: __import__('fcntl').fcntl(fd, 4, os.O_DIRECT))
attempt('open by pointer', lambda: call((437, 437), -1, 0, 0, 0))
other = os.open(out + '/other', os.O_RDWR | os.O_CREAT)
os.write(other, bytes(4096))
attempt('clone', lambda: __import__('fcntl').ioctl(fd, 0x40049409, other))
attempt('copy', lambda: os.copy_file_range(other, fd, 4096, 0, 0))
attempt('defragment', lambda: __import__('fcntl').ioctl(fd, 0x40309410, bytes(48)))
shared = mmap.mmap(other, 4096)
attempt('punch', lambda: shared.madvise(9))
attempt('punch own', lambda: call((440, 440), -1, 0, 0, 9, 0))
os.ftruncate(fd, 0)
print(os.fstat(fd).st_blocks)
attempt('posix', lambda: os.posix_fallocate(fd, 0, 2**20))
print(os.fstat(fd).st_blocks >= 2048)
os.unlink(out + '/grown')
publish()`

      const { lines } = await rig.attack(attack)
      const control = await open.attack(attack)

      const refused = [
        ...[
          'fallocate ENOTSUP',
          'keep size ENOTSUP',
          'reserve ENOTTY',
          'zero range ENOTTY',
          'unreserve ENOTTY',
        ],
        ...['direct EINVAL', 'direct later EINVAL', 'open by pointer ENOSYS'],
        ...['clone ENOTSUP', 'copy ENOSYS', 'defragment ENOTSUP', 'punch ENOTSUP', 'punch own ENOSYS'],
      ]
      assert.equal(lines, [...refused, '0', 'posix works', 'True'])
      assert.is(control.lines[0], 'fallocate works')
      for (const line of ['copy works', 'punch works'])
        assert.ok(control.lines.includes(line), control.lines.join())
    },
  )

  hostileInSweep(
    `a sandbox of ${name} that fails for a moment is tried again, and what it does not do then is told`,
    async () => {
      await using rig = await abuseRig(uid)
      chmodSync(rig.dir, 0o777)
      // The first calls fail, as they do while a filesystem is unmounted.
      const failing = `#!/bin/bash
calls=$(cat ${rig.path('calls')}); echo $((calls + 1)) > ${rig.path('calls')}
((calls >= $(cat ${rig.path('fails')}))) && exec ${rig.path('bwrap')} "$@"
echo "bwrap: Can't bind mount: No such device" >&2; exit 1`
      copyFileSync('/usr/bin/bwrap', rig.path('bwrap'))
      writeFileSync(rig.path('failing'), failing, { mode: 0o755 })
      const inPlace = `mount --bind ${rig.path('failing')} /usr/bin/bwrap && exec "$@"`
      const prefix = ['unshare', '--mount', 'sh', '-c', inPlace, 'sh', ...asUser(uid)]
      writeFileSync(rig.path('core.py'), `${PRELUDE}print('runs as', os.getuid(), flush=True)\npublish()`)
      const run = async (fails: number) => {
        for (const [name, text] of [
          ['calls', '0'],
          ['fails', `${fails}`],
        ] as const) {
          writeFileSync(rig.path(name), text)
          chmodSync(rig.path(name), 0o666)
        }
        const { events } = await rig.run(['core', '--retrain', '--json'], { prefix })
        const lines = events.flatMap(it => (it.event === 'train.output' ? [it.line] : []))
        const warnings = events.flatMap(it => (it.event === 'warning' ? [it.message] : []))
        const [guarantee] = events.flatMap(it => (it.event === 'job.start' ? [it.guarantee] : []))
        return { lines, guarantee, warnings: warnings.join() }
      }

      const once = await run(3)
      const often = await run(5)

      assert.equal([once.lines, once.guarantee], [[`runs as ${uid || 65_530}`], 'watch+sandbox'])
      assert.not.match(once.warnings, /root in the sandbox/)
      assert.is(often.guarantee, 'watch+sandbox')
      if (uid) return
      assert.equal(often.lines, ['runs as 0'])
      assert.match(often.warnings, /root's trainings are root in the sandbox, .*Can't bind mount/)
    },
  )

  hostileInSweep(
    `a training of ${name} leaves no memory, queue or message behind that outlives it`,
    async () => {
      await using rig = await abuseRig(uid)
      const key = 0x5241 * 2 ** 16 + (process.pid & 0xffff)

      const { lines } = await rig.attack(`
attempt('memory', lambda: call((29, 194), ${key}, 2**20, 0o1666))
attempt('semaphore', lambda: call((64, 190), ${key}, 1, 0o1666))
attempt('messages', lambda: call((68, 186), ${key}, 0o1666))
attempt('queue', lambda: call((240, 180), b'ransomeye-${process.pid}', 0o102, 0o666, 0))
publish()`)

      assert.equal(lines, ['memory works', 'semaphore works', 'messages works', 'queue works'])
      const left = spawnSync('cat', ['/proc/sysvipc/shm', '/proc/sysvipc/sem', '/proc/sysvipc/msg'])
      assert.not.match(String(left.stdout), new RegExp(`^ *${key} `, 'm'))
    },
  )

  hostileInSweep(`a training of ${name} connects to no socket of the machine's services`, async () => {
    await using rig = await abuseRig(uid)
    await using lone = await abuseRig(uid, { network: 'none' })
    await using open = await abuseRig(uid, { sandbox: 'off' })
    const id = `ransomeye-test-${process.pid}`
    const folders = ['/tmp', '/var/tmp', ...(process.getuid?.() === 0 ? ['/run', '/var/run'] : [])]
    const paths = [...folders.map(folder => `${folder}/${id}-${uid}`), `@${id}-${uid}`]
    const servers: ChildProcess[] = []
    for (const path of paths.filter(it => !it.startsWith('/var/run'))) {
      // Node.js 20 adds zeros to an abstract address.
      const server = spawn('/usr/bin/python3', ['-c', LISTENER, path], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      servers.push(server)
      await once(server.stdout, 'data')
    }
    const attack = `
def connect(path):
    with socket.socket(socket.AF_UNIX) as it: it.connect(path.replace('@', chr(0)))
for path in ${JSON.stringify(paths)}: attempt(path.split('ransomeye')[0], lambda: connect(path))
print(sorted(it[1] for it in socket.if_nameindex()))
publish()`

    try {
      const { lines } = await rig.attack(attack)
      const alone = await lone.attack(attack)
      const control = await open.attack(attack)

      const refused = folders.map(folder => `${folder}/ ENOENT`)
      // By its address alone it is of the network: an exception that the guarantees name.
      assert.equal(lines.slice(0, -1), [...refused, '@ works'])
      assert.equal(alone.lines, [...refused, '@ ECONNREFUSED', "['lo']"])
      assert.equal(control.lines.slice(0, -1), [...folders.map(folder => `${folder}/ works`), '@ works'])
    } finally {
      for (const server of servers) server.kill('SIGKILL')
      for (const path of paths) rmSync(path, { force: true })
    }
  })
}

/** Say which network namespace this is, and become another program; with a name, keep an abstract socket open in it. */
const IN_NAMESPACE = `
import os, socket, sys
if sys.argv[2]:
    kept = socket.socket(socket.AF_UNIX)
    kept.bind(chr(0) + sys.argv[2])
    os.set_inheritable(kept.fileno(), True)
open(sys.argv[1], 'w').write(os.readlink('/proc/self/ns/net'))
os.execvp(sys.argv[3], sys.argv[3:])`

for (const [what, name, isLeft] of [
  ['holds nothing', '', false],
  ['holds an abstract socket', 'ransomeye-test', true],
] as const) {
  asRootInSweep(
    `a training without a network ${isLeft ? 'leaves' : 'stays in'} a network that ${what}`,
    async () => {
      await using rig = await trainerRig({
        core: {
          train: [
            'sh',
            '-c',
            `readlink /proc/self/ns/net; cp fixture.onnx "$RANSOMEYE_OUTPUT_DIR/core.onnx"`,
          ],
          network: 'none',
        },
      })
      const outer = rig.path('outer')

      const prefix = ['unshare', '--net', 'python3', '-c', IN_NAMESPACE, outer, name]
      const { exitCode, stderr } = await rig.run(['core'], { prefix })

      assert.is(exitCode, 0, stderr)
      const [inside] = readFileSync(rig.path('models/.trainer/core.log'), 'utf8').split('\n')
      assert.match(inside!, /^net:\[\d+\]$/)
      assert.is(inside !== readFileSync(outer, 'utf8'), isLeft)
    },
  )
}

asRootInSweep(
  "root's training is not root, and what it makes is root's to read, publish and remove",
  async () => {
    await using rig = await abuseRig(0, { resume: 'always' })
    chmodSync(rig.dir, 0o700) // where only root may look
    const run = rig.begin(`
attempt('output', lambda: open('/dev/stdout', 'w').close())
print(os.getuid() != 0, os.access('core.py', os.R_OK), os.access('/etc/shadow', os.R_OK), os.access('/etc/passwd', os.W_OK))
import getpass, pwd
print(pwd.getpwuid(os.getuid()).pw_name)
os.mkdir(out + '/closed'); open(out + '/closed/mine.checkpoint', 'w').write('x'); os.chmod(out + '/closed', 0)
while not os.path.exists(out + '/go'): time.sleep(0.02)
publish()`)
    const { pid } = await untilEvent(rig, 'train.start')
    const group = () =>
      spawnSync('pgrep', ['-g', String(pid), 'python3'], { encoding: 'utf8' }).stdout.split('\n')[0]!
    const inside = await until('the training runs', group)
    const uid = statSync(`/proc/${inside}`).uid
    await until('its files', () => existsSync(rig.path('models/core/work/closed')))
    writeFileSync(rig.path('models/core/work/go'), '')
    const { exitCode } = await run.ended

    assert.is(exitCode, 0)
    const log = readFileSync(rig.path('models/.trainer/core.log'), 'utf8')
    assert.equal(log.trim().split('\n'), ['output works', 'True True True False', 'training'])
    assert.is.not(uid, 0)
    assert.is(statSync(rig.path('models/core/core.bin')).uid, 0)
    const next = await rig.attack(
      `
print(os.path.exists(out + '/closed/mine.checkpoint'), sorted(os.listdir(out)))
os.remove(out + '/closed/mine.checkpoint'); publish()`,
      ['--retrain'],
    )
    assert.equal([next.exitCode, next.lines.at(-1)], [0, "True ['cache', 'closed', 'go', 'home', 'tmp']"])
    assert.is(lstatSync(rig.path('models/core/work')).uid, uid)
  },
)

asRootInSweep(
  'what is mounted on the machine while a training runs does not come into its sandbox',
  async () => {
    await using rig = await abuseRig(0)
    mkdirSync(rig.path('mounted'), { mode: 0o777 })
    const script = `
open(out + '/ready', 'w').close()
while not os.path.exists(out + '/go'): time.sleep(0.02)
attempt('mounted', lambda: open(${JSON.stringify(rig.path('mounted', 'made'))}, 'w'))
publish()`
    writeFileSync(rig.path('core.py'), '')
    rig.begin(script).child.kill('SIGKILL') // has written the attack
    const run = rig.start(['core', '--json'], { prefix: ['unshare', '--mount', '--propagation', 'shared'] })
    await untilEvent(rig, 'train.start')
    await until('it is ready', () => existsSync(rig.path('models/core/work/ready')))
    const inTheirs = ['--target', String(run.pid), '--mount']
    const mount = ['mount', '-t', 'tmpfs', '-o', 'mode=1777', 'none', rig.path('mounted')]
    const mounted = spawnSync('nsenter', [...inTheirs, ...mount])
    const made = spawnSync('nsenter', [...inTheirs, 'touch', rig.path('models/core/work/go')])
    await run.ended

    assert.equal([mounted.status, made.status], [0, 0])
    assert.match(readFileSync(rig.path('models/.trainer/core.log'), 'utf8'), /^mounted EROFS$/m)
  },
)

hostile('the lock outlives the orchestrator for as long as anything in the sandbox lives', async () => {
  await using rig = await abuseRig(identities.at(-1)!.uid)
  const run = rig.begin(`
for _ in range(3): subprocess.Popen(['setsid', 'sleep', '300'], env={})
open(out + '/ready', 'w').close()
time.sleep(300)`)
  const { pid } = await untilEvent(rig, 'train.start')
  await until('it is ready', () => existsSync(rig.path('models/core/work/ready')))
  const holders = () =>
    spawnSync('sh', ['-c', `ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c '${rig.modelsDir}/.trainer/lock'`], {
      encoding: 'utf8',
    }).stdout.trim()
  const before = Number(holders())

  run.child.kill('SIGKILL')
  await run.ended
  await until('the lock is free', () => holders() === '0')
  const left = spawnSync('pgrep', ['-g', String(pid)], { encoding: 'utf8' })
    .stdout.trim()
    .split('\n')

  assert.ok(before >= 2, `${before} holders`)
  const live = left.filter(it => it && !/^State:\s+Z/m.test(readProc(`${it}/status`) ?? 'State:\tZ'))
  assert.equal(live, [])
})

test('a job that is to have no network is not run without a sandbox', async () => {
  await using rig = await abuseRig(identities[0]!.uid, { network: 'none', sandbox: 'off' })

  const { exitCode, stdout } = await rig.begin('').ended

  assert.is(exitCode, 78)
  assert.match(stdout, 'its sandbox is \\"off\\"')
})

test.run()
